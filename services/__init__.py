"""Signgate's services. Each owns its data and its RPCs; none imports another's code."""
