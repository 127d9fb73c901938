"""A signer without a socket, and its sign-server face."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import httpx
import pytest

from servicekit.edge import Edge
from servicekit.errors import SigngateError
from services.signer.http import create_app
from services.signer.jobs import Caller, Limit
from services.signer.limits import LimitReader
from tests.unit.signer_service.world import World


class FakeInspector:
    """Knows one list of limits."""

    def __init__(self) -> None:
        self.limits: Sequence[Limit] = ()
        self.fails: SigngateError | None = None

    async def inspect(self, caller: Caller) -> Sequence[Limit]:
        if self.fails is not None:
            raise self.fails
        return self.limits


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def inspector() -> FakeInspector:
    return FakeInspector()


@pytest.fixture
async def face(world: World, inspector: FakeInspector) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the face."""
    limits = LimitReader(world.door, inspector, waiting=lambda: world.singles.waiting, shed_at=64)
    transport = httpx.ASGITransport(create_app(world.service, limits, world.clock, Edge()))
    async with httpx.AsyncClient(transport=transport, base_url="http://face.test") as client:
        yield client
