"""Tools for those who work on Signgate; nothing here runs in production."""
