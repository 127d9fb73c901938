"""The client reaches every public service."""

from __future__ import annotations

from typing import Any

from deploy.settings import table
from signgate_client.calls import Stubs


class Channel:
    """Notes which methods stubs are made for."""

    def __init__(self) -> None:
        self.methods: set[str] = set()

    def __getattr__(self, kind: str) -> Any:
        return lambda path, **_: self.methods.add(path)


def test_every_public_service_has_its_stub() -> None:
    channel: Any = Channel()
    Stubs(channel)
    public = {name for service in table().services.values() for name in service.public}
    assert {path.split("/")[1] for path in channel.methods} == public
