"""What is measured: a stack of the benchmark's own, accounts with keys, and looks at it from outside."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import asyncpg
import grpc
import jwt
import redis
from prometheus_client.parser import text_string_to_metric_families

from bench.load import LoadError
from deploy.local import secrets
from deploy.local.layout import HOST, ROOT, Layout
from deploy.local.stack import Stack
from servicekit.clock import uuid7
from servicekit.keyset import KeySetFile
from signgate.keys.v1 import keys_pb2, keys_pb2_grpc

SHARDS: Final = 4
ACCOUNTS: Final = 16
PATIENT_QUOTA: Final = {"SIGNGATE_REDIS_TIMEOUT": "2"}
"""A loaded disk now and then keeps Redis for longer than the 80 ms after which quota gives up by default: one
answer in some hundred thousand would be an error then, and the run worth nothing."""
_no_limit: Final = "UPDATE public.plans SET daily_limit = 1e12, per_minute = 60000000, burst = 1000000"


Credential = Callable[[], tuple[tuple[str, str], ...]]
"""Gives the metadata by which one service proves itself to another, at each call of it."""


@dataclass(frozen=True)
class Account:
    """A user and the one key it signs with."""

    user_id: UUID
    key_id: UUID
    secret: str


class World:
    """A running stack. Its plans have no limits that a benchmark reaches."""

    def __init__(self, layout: Layout, stack: Stack) -> None:
        self.layout = layout
        self.stack = stack
        self.redis: redis.Redis = redis.Redis.from_url(self.redis_url)
        self.accounts: Sequence[Account] = ()

    def address(self, service: str, kind: str = "grpc", index: int = 0) -> str:
        """Where an instance listens."""
        return self.layout.instances(service)[index].address(kind)

    def credential(self, caller: str, called: str) -> Credential:
        """That of the service `caller`, for the service `called`."""
        peer = secrets.peer(self.layout, caller, called)
        return lambda: (peer.identity.pair(called),)

    @property
    def redis_url(self) -> str:
        """The stack's Redis, with its password."""
        return secrets.read(self.layout, "redis_url")

    def environment(self) -> dict[str, str]:
        """What a command needs that shall act on this stack."""
        return os.environ | {
            "SIGNGATE_RUN_DIR": self.layout.run.name,
            "SIGNGATE_PORT_SHIFT": str(self.layout.shift),
        }

    @property
    def edge(self) -> str:
        """Envoy's address."""
        return f"{HOST}:{self.layout.port('edge')}"

    def pids(self) -> dict[str, int]:
        """Everything that runs, by name."""
        return {name: process.pid for name, process in self.stack.processes().items() if process.pid}

    def service_pids(self) -> dict[str, int]:
        """The services' processes, by instance."""
        names = {instance.name for instance in self.layout.instances()}
        return {name: pid for name, pid in self.pids().items() if name in names}

    async def sql(self) -> asyncpg.Connection[Any]:
        """A superuser's connection to the database; the caller closes it."""
        return await asyncpg.connect(secrets.dsn(self.layout, secrets.SUPERUSER))

    async def populate(self, count: int = ACCOUNTS) -> None:
        """Lift the plans' limits; make accounts, each with a key from the keys service."""
        sql = await self.sql()
        await sql.execute(_no_limit)
        users = [uuid7() for _ in range(count)]
        rows = [(user, f"{user}@bench.test") for user in users]
        await sql.executemany("INSERT INTO public.users (id, email) VALUES ($1, $2)", rows)
        await sql.close()
        time.sleep(1.5)  # noqa: ASYNC251  # nothing else runs; quota sees the plans
        with grpc.insecure_channel(self.edge) as channel:
            stub = keys_pb2_grpc.KeysServiceStub(channel)
            made = [
                stub.CreateKey(keys_pb2.CreateKeyRequest(name="bench"), metadata=self._login(user))
                for user in users
            ]
        self.accounts = [
            Account(user, UUID(one.key.id), one.secret) for user, one in zip(users, made, strict=True)
        ]

    def _login(self, user: UUID) -> tuple[tuple[str, str], ...]:
        """An access token as the auth service signs them."""
        signing, now = KeySetFile(self.layout.secrets / "jwt_keyset").active("ES256"), int(time.time())
        claims = {
            "iss": f"{self.layout.edge_url}/auth/v1",
            "aud": "authenticated",
            "sub": str(user),
            "role": "authenticated",
            "session_id": str(uuid7()),
            "mfa": False,
            "iat": now,
            "exp": now + 3600,
        }
        key: Any = signing.key
        token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": signing.kid})
        return (("authorization", f"Bearer {token}"),)

    def answered(self) -> dict[str, float]:
        """URLs that all signers have answered so far, by result: `OK`, or the reason why not."""
        found: dict[str, float] = {}
        for index in range(len(self.layout.instances("signer"))):
            url = f"http://{self.address('signer', 'metrics', index)}/metrics"
            with urllib.request.urlopen(url) as page:  # our own signer
                families = text_string_to_metric_families(page.read().decode())
            for family in families:
                if family.name in {"signgate_signer_results", "signgate_signer_unknown"}:
                    for sample in family.samples:
                        if sample.name.endswith("_total"):
                            result = sample.labels.get("result") or sample.labels["reason"]
                            found[result] = found.get(result, 0) + sample.value
        return found

    @contextmanager
    def signed(self, urls: int) -> Iterator[None]:
        """Raise `LoadError` unless the block has exactly so many URLs signed, and none refused."""
        before = self.answered()
        yield
        after = self.answered()
        done = {name: after[name] - before.get(name, 0) for name in after}
        done = {name: count for name, count in done.items() if count}
        if done != {"OK": urls}:
            raise LoadError(f"{urls} URLs were to be signed; the signer counts {done}")

    def drain(self, timeout: float = 120.0) -> None:
        """Return when the logger has acknowledged all that is in the streams. Raises `TimeoutError`."""
        end = time.monotonic() + timeout
        while not all(self._drained(f"usage:{{{shard}}}") for shard in range(SHARDS)):
            if time.monotonic() > end:
                raise TimeoutError("the logger does not get to the streams' ends")
            time.sleep(0.05)

    def _drained(self, stream: str) -> bool:
        if not self.redis.exists(stream):
            return True
        last: Any = self.redis.xinfo_stream(stream)
        groups: Any = self.redis.xinfo_groups(stream)
        return all(
            group["pending"] == 0 and group["last-delivered-id"] == last["last-generated-id"]
            for group in groups
        )


@contextmanager
def world(
    name: str = "bench", shift: int = 6000, replicas: Mapping[str, int] | None = None
) -> Iterator[World]:
    """A fresh stack, gone at the end with all its data. `shift` is added to every port."""
    layout = Layout(
        run=ROOT / f".run-{name}", shift=shift, replicas=replicas or {}, overrides={"quota": PATIENT_QUOTA}
    )
    stack = Stack(layout, say=lambda _: None)
    with ExitStack() as cleanup:
        stack.destroy()
        cleanup.callback(stack.destroy)
        stack.up()
        yield World(layout, stack)
