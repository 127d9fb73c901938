"""Measurements: scripts that start what they measure, and print what they found."""
