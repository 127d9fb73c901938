"""Signing engines: one file each, behind one protocol.

base          the protocol
native        Signgate's own signed URLs, with `signed_url` (their form) and `signing_keys`
"""
