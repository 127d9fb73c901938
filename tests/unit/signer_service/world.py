"""A signer without a socket: the real line, service and native engine over hand-written peers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from servicekit import apikey
from servicekit.authn import Credential, SessionState
from servicekit.batching import Batcher
from servicekit.clock import SystemClock, SystemEntropy
from servicekit.errors import SigngateError, Unauthenticated, Unavailable
from servicekit.keyset import KeySet, generate
from servicekit.testing.tokens import TokenMint
from services.signer.domain import EngineStatus, Signed, SignRequest
from services.signer.door import Door
from services.signer.engines.native import NativeEngine
from services.signer.engines.signing_keys import SigningKeys
from services.signer.jobs import (
    API_KEY,
    Caller,
    Charge,
    Decision,
    Identity,
    Job,
    Limit,
    Part,
    Refund,
    Refusal,
    Wish,
)
from services.signer.line import Line
from services.signer.publisher import write_event
from services.signer.registry import Engines
from services.signer.service import SignerService
from services.signer.streams import StreamLimits, Streams
from signgate.usage.v1.event_pb2 import UsageEvent

DAY = 20_500
SIGN = frozenset({"sign"})


class FakeKeys:
    """Knows the keys it was told of. `fails` fails the whole call; `answers` counts calls."""

    def __init__(self) -> None:
        self.known: dict[str, Caller | Refusal] = {}
        self.fails: SigngateError | None = None
        self.lists: list[list[Credential]] = []
        self.gate: asyncio.Event | None = None

    async def validate(self, credentials: Sequence[Credential]) -> Sequence[Caller | Refusal]:
        self.lists.append(list(credentials))
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        unknown = Refusal(Unauthenticated("No such key.", reason="KEY_UNKNOWN"))
        return [self.known.get(credential.secret, unknown) for credential in credentials]


class FakeSessions:
    def __init__(self) -> None:
        self.revoked: set[str] = set()
        self.fails: SigngateError | None = None

    async def states(self, session_ids: Sequence[str]) -> Sequence[SessionState]:
        if self.fails is not None:
            raise self.fails
        return [SessionState(session_id in self.revoked) for session_id in session_ids]


class FakeQuota:
    """Counts what users have left. `undecided` users get no decision; `fails` fails the whole call."""

    def __init__(self) -> None:
        self.left: dict[str, int] = {}
        self.limit = 1000
        self.kind = "user_day"
        self.undecided: set[str] = set()
        self.fails: SigngateError | None = None
        self.lists: list[list[Charge]] = []
        self.refunded: list[Refund] = []
        self.gate: asyncio.Event | None = None

    async def consume(self, charges: Sequence[Charge]) -> tuple[Sequence[Decision], float]:
        self.lists.append(list(charges))
        if self.gate is not None:
            await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return [self._decide(charge) for charge in charges], 2_000_000_000.0

    def _decide(self, charge: Charge) -> Decision:
        user = charge.caller.user_id
        if user in self.undecided:
            return Decision(0, "", 0.5, None, 0, undecided=True)
        left = self.left.get(user, self.limit)
        granted = min(left, charge.cost) if charge.partial or left >= charge.cost else 0
        self.left[user] = left - granted
        limit = Limit(self.kind, self.limit, left - granted, 1_900_000_000.0)
        denied = "" if granted == charge.cost else self.kind
        return Decision(granted, denied, 30.0 if denied else 0.0, limit, DAY if granted else 0)

    async def refund(self, refunds: Sequence[Refund]) -> None:
        self.refunded += refunds

    def later(self, refunds: Sequence[Refund]) -> None:
        """As the queue of refunds."""
        self.refunded += refunds


class FakeEvents:
    """A usage stream. `fails`: what each shard fails with; `after_lease` fails only fenced calls."""

    def __init__(self) -> None:
        self.entries: list[tuple[int, list[UsageEvent]]] = []
        self.fails: dict[int, Unavailable] = {}
        self.fails_all: Unavailable | None = None
        self.fails_fenced: Unavailable | None = None
        self.leases: list[float | None] = []
        self.gate: asyncio.Event | None = None

    async def publish(
        self, shards: Mapping[int, Sequence[tuple[Job, Part]]], lease: float | None
    ) -> Mapping[int, Unavailable]:
        self.leases.append(lease)
        if self.gate is not None:
            await self.gate.wait()
        failed: dict[int, Unavailable] = {}
        for shard, members in shards.items():
            error = self.fails.get(shard) or self.fails_all
            if lease is not None:
                error = error or self.fails_fenced
            if error is not None:
                failed[shard] = error
            else:
                events = [UsageEvent() for _ in members]
                for event, (job, part) in zip(events, members, strict=True):
                    write_event(event, job, part)
                self.entries.append((shard, events))
        return failed

    @property
    def all(self) -> list[UsageEvent]:
        return [one for _, events in self.entries for one in events]


class BrokenEngine:
    """Fails the rooms it is told to; raises when told to; not ready when told to."""

    def __init__(self, native: NativeEngine, name: str = "broken") -> None:
        self.name = name
        self._native = native
        self.fails: dict[str, SigngateError] = {}
        self.raises: Exception | None = None
        self.ready = True
        self.signed: list[SignRequest] = []
        self.gate: asyncio.Event | None = None

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def canary(self) -> EngineStatus:
        return self.describe()

    def describe(self) -> EngineStatus:
        return EngineStatus(self._native.describe().info, self.ready)

    async def sign(self, requests: Sequence[SignRequest]) -> list[Signed | SigngateError]:
        self.signed += requests
        if self.gate is not None:
            await self.gate.wait()
        if self.raises is not None:
            raise self.raises
        signed = await self._native.sign(requests)
        return [
            self.fails.get(request.room.username, one) for request, one in zip(requests, signed, strict=True)
        ]


class World:
    """A signer, its peers, and who calls it."""

    def __init__(self, *, shards: int = 4, max_waiting: int = 64) -> None:
        self.clock = SystemClock()
        now = int(self.clock.time())
        material = KeySet((generate("EdDSA", now - 10), generate("HS256", now - 10)))
        self.native = NativeEngine(SigningKeys(lambda: material), self.clock)
        self.broken = BrokenEngine(self.native)
        self.engines = Engines([self.native, self.broken], default="native", native=self.native)
        self.keys = FakeKeys()
        self.sessions = FakeSessions()
        self.quota = FakeQuota()
        self.events = FakeEvents()
        self.mint = TokenMint()
        self.line = Line(
            self.keys,
            self.sessions,
            self.quota,
            self.engines,
            self.events,
            self.quota,
            clock=self.clock,
            shards=shards,
        )
        self.singles: Batcher[Job, Job] = Batcher(
            self.line.run, name="test_sign", max_batch=32, max_waiting=max_waiting
        )
        self.streams: Batcher[Job, Job] = Batcher(
            self.line.run, name="test_stream", max_batch=32, max_waiting=16 * max_waiting
        )
        self.batches: Batcher[Job, Job] = Batcher(
            self.line.run, name="test_batch", max_batch=8, max_waiting=max_waiting
        )
        self.door = Door(self.keys, self.sessions, waiting=max_waiting)
        self.open_streams = Streams(self.door, self.keys, self.sessions, StreamLimits(), self.clock)
        self.service = SignerService(
            tokens=self.mint.verifier(),
            door=self.door,
            singles=self.singles,
            streams=self.streams,
            batches=self.batches,
            engines=self.engines,
            clock=self.clock,
            request_ids=lambda: str(uuid4()),
            max_wait=5.0,
        )

    async def start(self) -> None:
        await self.native.start()
        await self.native.canary()

    async def stop(self) -> None:
        for batcher in (self.door, self.singles, self.streams, self.batches):
            await batcher.close()

    def key(self, **changes: Any) -> tuple[str, Caller]:
        """A new key of a new user, known to the keys service; the signer has seen it hold before."""
        secret, caller = self.fresh_key(**changes)
        self.door._owners[hash(secret)] = caller.user_id
        return secret, caller

    def fresh_key(self, **changes: Any) -> tuple[str, Caller]:
        """As `key`, but the signer has never seen it."""
        secret = unknown_key()
        caller = Caller(str(uuid4()), str(uuid4()), API_KEY, SIGN)._replace(**changes)
        self.keys.known[secret] = caller
        return secret, caller

    def refused_key(self, reason: str, user_id: str = "", key_id: str = "") -> str:
        secret = unknown_key()
        self.keys.known[secret] = Refusal(Unauthenticated(reason=reason), user_id, key_id)
        return secret

    def token(self, user_id: UUID, **changes: Any) -> str:
        return self.mint.token(user_id, **changes)

    async def identity(self, secret: str) -> Identity:
        return await self.service.identify((("authorization", f"Bearer {secret}"),))

    async def job(self, secret: str, *wishes: Wish | str, deadline: float | None = None) -> Job:
        asked = [Wish(wish) if isinstance(wish, str) else wish for wish in wishes]
        return self.service.job(await self.identity(secret), asked, deadline, partial=len(asked) > 1)

    async def sign(self, secret: str, wish: Wish | str = "@someone") -> Part:
        return await self.service.sign(await self.job(secret, wish))

    async def sign_batch(self, secret: str, *wishes: Wish | str) -> Job:
        return await self.service.sign_batch(await self.job(secret, *wishes))


def unknown_key() -> str:
    """A well-formed key that nobody knows."""
    return apikey.mint("live", uuid4(), SystemEntropy())
