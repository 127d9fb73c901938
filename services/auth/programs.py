"""What a user agent says it is, in words of our own.

A user agent is whatever its sender writes: a mail that repeats it would carry a stranger's text. So a mail,
and the memory of known clients, have one of these words each.
"""

from __future__ import annotations

from typing import Final

UNKNOWN: Final = "an unknown program"

# The first that is found counts: Edge says that it is Chrome, and Chrome that it is Safari.
_programs: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("Vivaldi", "Vivaldi"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("CriOS", "Chrome"),
    ("Chrome", "Chrome"),
    ("Safari", "Safari"),
    ("okhttp", "an Android app"),
    ("CFNetwork", "an Apple app"),
    ("Dart", "a Flutter app"),
    ("grpc", "a gRPC client"),
    ("python", "a Python program"),
    ("node", "a Node.js program"),
    ("Go-http-client", "a Go program"),
    ("Java", "a Java program"),
    ("curl", "curl"),
    ("Wget", "Wget"),
    ("PostmanRuntime", "Postman"),
)
_systems: Final = (
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iPadOS"),
    ("Windows", "Windows"),
    ("Macintosh", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


def program(user_agent: str) -> str:
    """Such as `Firefox on Windows`; the same for every version."""
    named = next((words for mark, words in _programs if mark.lower() in user_agent.lower()), UNKNOWN)
    system = next((words for mark, words in _systems if mark in user_agent), "")
    return f"{named} on {system}" if system else named
