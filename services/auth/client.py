"""Where a call comes from, read from its metadata or headers: the same for both faces."""

from __future__ import annotations

from collections.abc import Iterable

from servicekit import context
from services.auth.domain import Client, Device

_read, _kept = 512, 256
"""Characters of a user agent that are looked at, and kept."""

Pairs = Iterable[tuple[str, str | bytes]]


def client_of(metadata: Pairs, device: Device | None = None) -> Client:
    """The current call's client: its address (see `servicekit.edge`) and program; keys are lower case."""
    agent = next((str(value) for key, value in metadata if key == "user-agent"), "")
    program = _printable(agent[:_read])[:_kept]
    return Client(ip=context.client_ip(), user_agent=program, request_id=context.request_id(), device=device)


def _printable(text: str) -> str:
    return "".join(char for char in text if char.isprintable())
