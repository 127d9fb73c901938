"""Where a call comes from, read from its metadata or headers: the same for both faces."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from servicekit import context
from servicekit.authn import client_ip
from services.auth.domain import Client

Pairs = Iterable[tuple[str, str | bytes]]


def client_of(metadata: Pairs) -> Client:
    """The caller's address as the edge saw it, "" when it is none; keys are lower case."""
    pairs = list(metadata)
    agent = next((str(value) for key, value in pairs if key == "user-agent"), "")
    try:
        ip = str(ipaddress.ip_address(client_ip(pairs)))
    except ValueError:
        ip = ""
    return Client(ip=ip, user_agent=_printable(agent)[:256], request_id=context.request_id())


def _printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable())
