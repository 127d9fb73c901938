"""Who answers `Sign`, and how each one's answers are counted and checked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import grpc

from bench import load
from bench.baselines import echo, serving, sql
from bench.load import Load, LoadError, Target
from bench.processes import Cost, accounted
from bench.world import World
from deploy.local import secrets
from deploy.local.layout import HOST
from signgate.signer.v1 import signer_pb2 as pb
from signgate.signer.v1 import signer_pb2_grpc

SERVICE: Final = "signgate.signer.v1.SignerService"
DATABASE: Final = "baseline"
POOL: Final = 16
"""Connections of the sql baselines: more gained nothing, fewer lost."""
FRAME: Final = 5
"""Bytes before each message of gRPC's."""
PROCESSES: Final = 4
"""Of the load, each with a key of its own: sixteen of them took a tenth of the machine for themselves."""
STREAM: Final = 10_000
"""Requests of one stream."""


def room(number: int) -> str:
    """Rooms as people paste them, of many users."""
    return f"https://www.tiktok.com/@some.streamer.{number:04d}/live"


@dataclass
class Contender:
    """A way to have URLs signed. `urls`: of each request. `answered` checks a run of so many URLs.

    `message`: bytes of each answer, where all are the same; they are counted then.
    """

    name: str
    target: Target
    pids: Callable[[], Mapping[str, int]]
    answered: Callable[[int], AbstractContextManager[None]]
    drain: Callable[[], None]
    callers: int = 64
    urls: int = 1
    message: int | None = None
    costs: list[Cost] = field(default_factory=list)

    def run(self, requests: int, **options: Any) -> Load:
        """Send so many requests in all; returns when also what was put off has been done."""
        processes = min(len(self.target.credentials), self.callers)
        requests = max(requests // processes, 1) * processes
        with accounted(self.pids()) as cost:
            with self.answered(requests * self.urls):
                done = self._sent(requests, self.callers, **options)
            self.drain()
        cost.seconds = {name: spent / (done.requests * self.urls) for name, spent in cost.seconds.items()}
        self.costs.append(cost)
        return done

    def alone(self, requests: int) -> Load:
        """So many requests of one caller, one after the other."""
        with self.answered(requests * self.urls):
            done = self._sent(requests, 1, log=True)
        self.drain()
        return done

    def _sent(self, requests: int, callers: int, **options: Any) -> Load:
        done = load.run(self.target, requests, callers=callers, **options)
        if self.message is not None and done.received != done.requests * (FRAME + self.message):
            raise LoadError(f"{self.name}: {done.received} bytes for {done.requests} answers: errors")
        return done

    def urls_per_second(self, seconds: float, rate: float) -> float:
        """The rate of a run of about so many seconds, given about the rate there will be, in URLs."""
        return self.run(round(rate * seconds / self.urls)).rate * self.urls


@contextmanager
def contenders(world: World) -> Iterator[dict[str, Contender]]:
    """All of them, by name, serving inside the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keys = [account.secret for account in world.accounts[:PROCESSES]]
        one = load.body(folder, "sign", [pb.SignRequest(room_url=room(0))])
        batch = pb.SignBatchRequest(requests=[pb.SignRequest(room_url=room(n)) for n in range(100)])
        hundred = load.body(folder, "batch", [batch])
        stream = load.body(
            folder,
            "stream",
            [
                pb.SignStreamRequest(tag=n + 1, request=pb.SignRequest(room_url=room(n % 1000)))
                for n in range(STREAM)
            ],
        )

        def signgate(
            name: str, addresses: Sequence[str], method: str, body: Path, **options: Any
        ) -> Contender:
            callers = options.get("callers", 64)
            target = Target(addresses, f"{SERVICE}/{method}", body, keys[:callers])
            return Contender(name, target, world.pids, world.signed, world.drain, **options)

        direct = [instance.address("grpc") for instance in world.layout.instances("signer")]
        found = [
            signgate("sign", direct, "Sign", one),
            signgate("envoy", [world.edge], "Sign", one),
            signgate("batch", direct, "SignBatch", hundred, callers=8, urls=100),
            signgate("stream", direct, "SignStream", stream, callers=1, urls=STREAM),
        ]
        port = world.layout.port("edge") + 500
        for place, (name, module, *arguments) in enumerate(
            (
                ("echo", "echo"),
                ("sql_four", "sql", "four", str(POOL), str(world.layout.secrets / "signing_keyset")),
                ("sql_one", "sql", "one", str(POOL), str(world.layout.secrets / "signing_keyset")),
            )
        ):
            process = stack.enter_context(
                serving.running(module, port + place, *arguments, environment={"BASELINE_DSN": _dsn(world)})
            )
            pids = {name: process.pid}
            if module == "sql":
                pids["postgres"] = world.pids()["postgres"]
            found.append(
                Contender(
                    name,
                    Target([f"{HOST}:{port + place}"], f"{SERVICE}/Sign", one, keys),
                    pids=lambda pids=pids: pids,  # type: ignore[misc]
                    answered=_rows(world) if module == "sql" else lambda _: nullcontext(),
                    drain=lambda: None,
                    message=echo.answer().ByteSize() if module == "echo" else None,
                )
            )
        for contender in found:
            _probe(contender)
        yield {contender.name: contender for contender in found}


async def prepare(world: World) -> None:
    """The sql baselines' database, with the world's accounts."""
    server = await world.sql()
    await server.execute(f"CREATE DATABASE {DATABASE}")
    await server.close()
    database = await asyncpg.connect(_dsn(world))
    await database.execute(sql.SCHEMA.read_text(encoding="utf-8"))
    for account in world.accounts:
        await database.execute(
            "INSERT INTO users (id, email) VALUES ($1, $2)", account.user_id, f"{account.user_id}@bench.test"
        )
        await database.execute(
            "INSERT INTO api_keys (id, user_id, key_hash, name) VALUES ($1, $2, $3, 'bench')",
            *(account.key_id, account.user_id, sql.digest(account.secret.encode()).hex()),
        )
    await database.close()


def _dsn(world: World) -> str:
    return secrets.dsn(world.layout, secrets.SUPERUSER, DATABASE)


def _rows(world: World) -> Callable[[int], AbstractContextManager[None]]:
    """Each signature of a sql baseline has a row, and is counted."""

    @contextmanager
    def answered(urls: int) -> Iterator[None]:
        before = _count(world)
        yield
        done = _count(world) - before
        if done != urls:
            raise LoadError(f"{urls} URLs were to be signed; {done} rows say so")

    return answered


def _count(world: World) -> int:
    import asyncio  # noqa: PLC0415

    async def count() -> int:
        database = await asyncpg.connect(_dsn(world))
        try:
            rows, charged = await database.fetchrow(  # type: ignore[misc]  # there is always one
                "SELECT (SELECT count(*) FROM usage_logs), (SELECT sum(request_count) FROM quota_usage)"
            )
        finally:
            await database.close()
        if rows != (charged or 0):
            raise LoadError(f"{rows} rows, {charged} charged")
        return int(rows)

    return asyncio.run(count())


def _probe(contender: Contender) -> None:
    """One call by a real client: OK, and a signature."""
    if not contender.target.method.endswith("/Sign"):
        return
    with grpc.insecure_channel(contender.target.addresses[0]) as channel:
        metadata = (("x-api-key", contender.target.credentials[0]),)
        answer = signer_pb2_grpc.SignerServiceStub(channel).Sign(
            pb.SignRequest(room_url=room(0)), metadata=metadata, timeout=10
        )
    if "sg_sig=" not in answer.signature.signed_url:
        raise LoadError(f"{contender.name} answers without a signature")
