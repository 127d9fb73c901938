"""Exports: of one moment, with nothing held for a slow reader, and with their places always given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest

from servicekit.clock import SystemClock, uuid7
from servicekit.errors import SigngateError, Unauthenticated
from servicekit.postgres import open_database
from servicekit.principal import Principal
from servicekit.rpc import create_server
from services.logger import codec, export
from services.logger import servicer as servicer_module
from services.logger.domain import UsageFilter, UsageRecord
from services.logger.errors import ExportLimit, ExportStalled
from services.logger.ingest import IngestStore
from services.logger.places import ExportBounds, Places
from services.logger.recheck import Recheck
from services.logger.service import UsageService
from services.logger.servicer import UsageServicer
from services.logger.store import UsageStore
from signgate.usage.v1 import usage_pb2, usage_pb2_grpc
from tests.integration.logger.world import World, event

NOW = datetime.now(UTC)


def one(user: UUID, at: datetime, key: UUID | None = None) -> Any:
    made = event(user, charged=0, charged_day=0, api_key_id=str(key) if key else "")
    made.created_at.FromDatetime(at)
    return codec.row(made)


@dataclass
class Archive:
    """A user's usage, and what reads it."""

    world: World
    store: UsageStore
    ingest: IngestStore
    caller: Principal
    pool: Any

    async def add(self, *ats: datetime) -> list[UUID]:
        rows = [one(self.caller.user_id, at) for at in ats]
        await self.ingest.ingest(rows)
        return [row.id for row in rows]

    async def busy(self) -> int:
        """Connections that are in a transaction or a statement."""
        return int(
            await self.world.sql.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'signgate-archive'"
                " AND state <> 'idle'"
            )
        )


@pytest.fixture
async def archive(world: World) -> AsyncIterator[Archive]:
    async with open_database(world.database.dsn("signgate_logger"), name="archive", max_size=2) as database:
        yield Archive(
            world,
            UsageStore(database),
            IngestStore(database),
            Principal(await world.user()),
            database.pool,
        )


async def test_between_two_chunks_neither_a_connection_nor_a_transaction_is_held(archive: Archive) -> None:
    await archive.add(*(NOW - timedelta(seconds=n) for n in range(10)))
    chunks = archive.store.export(archive.caller, UsageFilter(), 3)
    seen = 0
    async for chunk in chunks:
        seen += len(chunk)
        assert archive.pool.get_size() == archive.pool.get_idle_size()
        assert await archive.busy() == 0
    assert seen == 10


async def test_many_slow_exports_go_on_side_by_side_with_two_connections(archive: Archive) -> None:
    await archive.add(*(NOW - timedelta(seconds=n) for n in range(10)))
    exports = [archive.store.export(archive.caller, UsageFilter(), 3) for _ in range(20)]
    for _ in range(4):
        assert all([await anext(chunks, None) for chunks in exports])


@pytest.mark.parametrize("size", [1, 3, 7, 100])
async def test_rows_of_one_moment_and_of_several_partitions_come_once_in_order(
    archive: Archive, size: int
) -> None:
    """Months, the default partition, and many rows of the very same microsecond."""
    ids: dict[UUID, datetime] = {}
    for at in (NOW - timedelta(days=800), NOW - timedelta(days=31), NOW, NOW + timedelta(days=40)):
        ats = [at] * 5 + [at + timedelta(microseconds=1)]
        ids |= dict(zip(await archive.add(*ats), ats, strict=True))
    found = [
        row.id async for chunk in archive.store.export(archive.caller, UsageFilter(), size) for row in chunk
    ]
    assert found == sorted(ids, key=lambda row_id: (ids[row_id], row_id.bytes))


async def test_an_export_is_of_the_moment_when_it_began(archive: Archive) -> None:
    """What arrives after the newest request of then is not in it; nothing of then is missing."""
    began = await archive.add(*(NOW - timedelta(seconds=n) for n in range(1, 7)))
    chunks = archive.store.export(archive.caller, UsageFilter(), 2)
    found = [row.id for row in await anext(chunks)]
    await archive.add(NOW, NOW + timedelta(seconds=1), *(NOW + timedelta(days=n) for n in range(40)))
    found += [row.id async for chunk in chunks for row in chunk]
    assert sorted(found) == sorted(began)


async def test_an_export_without_a_row_and_one_before_all_rows_are_empty(archive: Archive) -> None:
    assert [chunk async for chunk in archive.store.export(archive.caller, UsageFilter(), 2)] == []
    await archive.add(NOW)
    before = UsageFilter(end=NOW - timedelta(days=1))
    assert [chunk async for chunk in archive.store.export(archive.caller, before, 2)] == []


class Endless:
    """A reader whose exports never end; counts what was read of it. `broken`: it fails after one chunk."""

    def __init__(self) -> None:
        self.chunks = 0
        self.broken = False

    async def export(
        self, caller: Principal, where: UsageFilter, chunk: int
    ) -> AsyncIterator[list[UsageRecord]]:
        row = UsageRecord(
            id=uuid7(),
            api_key_id=None,
            room_url="https://www.tiktok.com/@" + "x" * 2000,
            success=True,
            response_time_ms=5,
            error_reason=None,
            created_at=NOW,
            engine="native",
            charged=1,
        )
        while True:
            self.chunks += 1
            yield [row] * chunk
            if self.broken:
                raise RuntimeError("broken")

    async def list_usage(self, *_: object) -> Any:
        raise NotImplementedError

    tallies = system_stats = list_usage


class Callers:
    """Authenticates by name: `x-api-key: <user>/<key>`, without a key `<user>/`; refuses `revoked` ones."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    async def authenticate(self, metadata: Any) -> Principal:
        caller = dict(metadata)["x-api-key"]
        if caller in self.revoked:
            raise Unauthenticated(reason="KEY_REVOKED")
        user, _, key = caller.partition("/")
        return Principal(UUID(user), api_key_id=UUID(key) if key else None, scopes=frozenset({"usage:read"}))


@dataclass
class Exporting:
    """A server of exports that never end."""

    channel: grpc.aio.Channel
    reader: Endless
    places: Places
    callers: Callers
    opened: list[Any] = field(default_factory=list)

    async def open(self, caller: str) -> Any:
        """An export that has begun. Raises `grpc.aio.AioRpcError` when it is refused."""
        stub: Any = usage_pb2_grpc.UsageServiceStub(self.channel)
        call = stub.ExportUsage(usage_pb2.ExportUsageRequest(), metadata=(("x-api-key", caller),))
        self.opened.append(call)
        await call.read()
        return call

    async def until(self, held: int) -> None:
        async with asyncio.timeout(10):
            while self.places.held != held:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def exporting(**bounds: Any) -> AsyncIterator[Exporting]:
    reader: Any = Endless()
    callers = Callers()
    servicer = UsageServicer(UsageService(reader, SystemClock()), ExportBounds(**bounds), callers)
    server = create_server(authenticator=callers)
    server.add(servicer, usage_pb2_grpc.add_UsageServiceServicer_to_server)
    port = server.listen("127.0.0.1:0")
    await server.start()
    # Plain gRPC, for the errors as they are on the wire.
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        found = Exporting(channel, reader, servicer.places, callers)
        yield found
        for call in found.opened:
            call.cancel()
    await server.stop(0)


USER, OTHER, KEY, KEY2 = (str(uuid4()) for _ in range(4))


async def refused(exports: Exporting, caller: str) -> tuple[str, bool]:
    """Whose limit an export is refused by, and whether it says when to come back."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await exports.open(caller)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailing = dict(caught.value.trailing_metadata())
    details = bytes(trailing["grpc-status-details-bin"])
    assert b"EXPORT_LIMIT" in details
    scope = next(
        scope
        for scope in ("key", "user", "service")
        if f"\x05scope\x12{chr(len(scope))}{scope}".encode() in details
    )
    return scope, "retry-after" in trailing


async def test_an_export_ends_when_its_key_is_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicer_module, "Recheck", partial(Recheck, every=0.0))
    async with exporting() as exports:
        call = await exports.open(f"{USER}/{KEY}")
        exports.callers.revoked.add(f"{USER}/{KEY}")
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while True:
                await call.read()
        assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
        await exports.until(0)


async def test_exports_are_bounded_by_key_by_user_and_in_all() -> None:
    async with exporting(of_key=2, of_user=3, of_all=4) as exports:
        for _ in range(2):
            await exports.open(f"{USER}/{KEY}")
        assert await refused(exports, f"{USER}/{KEY}") == ("key", True)
        await exports.open(f"{USER}/{KEY2}")
        assert await refused(exports, f"{USER}/{KEY2}") == ("user", True)
        assert await refused(exports, f"{USER}/") == ("user", True)
        await exports.open(f"{OTHER}/")
        assert await refused(exports, f"{OTHER}/") == ("service", True)


async def _cancelled(exports: Exporting) -> None:
    exports.opened[0].cancel()


async def _broken(exports: Exporting) -> None:
    exports.reader.broken = True
    await _drain(exports.opened[0])


async def _drain(call: Any) -> None:
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError:
        pass


@pytest.mark.parametrize("end", [_cancelled, _broken])
async def test_an_export_that_ends_in_whatever_way_gives_its_place_back(
    end: Callable[[Exporting], Awaitable[None]],
) -> None:
    async with exporting(of_user=1) as exports:
        await exports.open(f"{USER}/")
        await refused(exports, f"{USER}/")
        await end(exports)
        await exports.until(held=0)
        exports.reader.broken = False
        await exports.open(f"{USER}/")


async def test_a_place_is_given_back_when_the_client_is_gone() -> None:
    async with exporting(of_user=1) as exports:
        await exports.open(f"{USER}/")
        await exports.channel.close()
        await exports.until(held=0)


async def test_nothing_is_read_ahead_of_a_receiver_that_takes_nothing() -> None:
    """What waits for it is what the connection buffers, not the rest of the file."""
    async with exporting() as exports:
        await exports.open(f"{USER}/")
        async with asyncio.timeout(20):
            before = -1
            while exports.reader.chunks != before:  # until it stands still
                before = exports.reader.chunks
                await asyncio.sleep(0.5)
        assert before < 20


@pytest.mark.parametrize(
    ("bounds", "reason"), [({"stall": 0.3}, b"EXPORT_STALLED"), ({"seconds": 0.3}, b"EXPORT_TIMEOUT")]
)
async def test_a_receiver_that_takes_too_long_is_cut_off(bounds: dict[str, float], reason: bytes) -> None:
    """Its place is free at once; it gets the error behind what was on its way."""
    async with exporting(of_user=1, **bounds) as exports:
        call = await exports.open(f"{USER}/")
        await exports.until(held=0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        details = bytes(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
        assert reason in details


async def test_pieces_are_small_and_whole() -> None:
    """A chunk of 2,000 of the longest URLs is more than a message may hold."""
    taken: list[bytes] = []

    async def data() -> AsyncIterator[bytes]:
        yield b"a" * (export.PIECE + 1)
        yield b""
        yield b"b" * export.PIECE

    async def take(piece: bytes) -> None:
        taken.append(piece)

    await export.sent(data(), take, seconds=10, stall=10)
    assert [len(piece) for piece in taken] == [export.PIECE, 1, export.PIECE]
    assert b"".join(taken) == b"a" * (export.PIECE + 1) + b"b" * export.PIECE


async def test_an_error_of_the_source_is_not_taken_for_a_slow_receiver() -> None:
    async def data() -> AsyncIterator[bytes]:
        yield b"a"
        raise ExportLimit

    async def take(piece: bytes) -> None:
        return

    with pytest.raises(ExportLimit):
        await export.sent(data(), take, seconds=10, stall=10)


async def test_a_stall_is_of_one_piece_not_of_all() -> None:
    async def data() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"a"

    async def take(piece: bytes) -> None:
        await asyncio.sleep(0.1)

    await export.sent(data(), take, seconds=10, stall=0.35)

    async def never(piece: bytes) -> None:
        await asyncio.Event().wait()

    with pytest.raises(ExportStalled):
        await export.sent(data(), never, seconds=10, stall=0.05)


def test_places_hold_no_memory_for_callers_without_an_export() -> None:
    places = Places(ExportBounds(of_user=1, of_key=1))
    caller = Principal(uuid7(), api_key_id=uuid7())
    for _ in range(3):
        with places.taken(caller), pytest.raises(SigngateError, match="EXPORT_LIMIT"), places.taken(caller):
            pass
    assert places.held == 0
    assert not places._held
