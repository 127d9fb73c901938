"""How long a revoked key is still accepted: `python -m bench.revocation [--rounds 100]`.

Starts a stack of its own with two signers and two keys replicas. In each round a key is used without
a pause in four places, `Sign` at each signer (whose calls go to both keys replicas in turn) and
`ValidateKeys` at each keys replica, and is revoked at a moment that no place knows. A round's figure
is the time from the revocation's answer to the end of the last call, in any place, that still took
the key; 0 when none did. Two ways:

- `message`: RevokeKey through the edge; the message goes over Redis to the other replica;
- `lost message`: the row is changed behind the service's back, as if the message had been lost; only
  the age bound of the records is left.

Calls start every few milliseconds in each place (`--pace`), which is the resolution. Prints the
distribution, writes bench/out/revocation.json, and exits 1 if a p99 is 250 ms or more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import jwt
from grpc import aio

from deploy.local import secrets
from deploy.local.layout import HOST, ROOT, Layout
from deploy.local.stack import Stack
from servicekit.clock import uuid7
from servicekit.errors import SigngateError
from servicekit.keyset import KeySetFile
from servicekit.rpc import create_channel
from signgate.keys.v1 import keys_pb2, keys_pb2_grpc, validation_pb2, validation_pb2_grpc
from signgate.signer.v1 import signer_pb2, signer_pb2_grpc

PROMISE = 0.250
WARM_UP = 0.4
QUIET = 0.4
OUT = Path(__file__).with_name("out") / "revocation.json"

Use = Callable[[], Awaitable[bool]]
"""One use of the key: whether it was taken. Raises what is neither yes nor KEY_REVOKED."""


@dataclass
class Place:
    """Where the key is used, over and over, and when it was last taken."""

    use: Use
    pace: float
    last_taken: float = 0.0
    refused_since: float | None = None
    calls: int = 0

    async def run(self) -> None:
        """Until the key has been refused for `QUIET` seconds without a break."""
        while self.refused_since is None or time.monotonic() - self.refused_since < QUIET:
            started = time.monotonic()
            taken = await self.use()
            ended = time.monotonic()
            self.calls += 1
            if taken:
                self.last_taken, self.refused_since = ended, None
            elif self.refused_since is None:
                self.refused_since = ended
            await asyncio.sleep(max(0.0, started + self.pace - time.monotonic()))


@dataclass
class Bench:
    """The stack under measurement, from outside."""

    layout: Layout
    pace: float
    sql: asyncpg.Connection[asyncpg.Record]
    edge: aio.Channel
    signers: Sequence[aio.Channel]
    keys: Sequence[aio.Channel]
    auth: tuple[tuple[str, str], ...] = ()

    async def login(self) -> None:
        """An account, and an access token as the auth service signs them."""
        user_id, now = uuid7(), int(time.time())
        await self.sql.execute("UPDATE public.plans SET daily_limit = 1e9, per_minute = 1e6, burst = 1e6")
        await self.sql.execute(
            "INSERT INTO public.users (id, email) VALUES ($1, $2)", user_id, f"{user_id}@bench.test"
        )
        signing = KeySetFile(self.layout.secrets / "jwt_keyset").active("ES256")
        claims = {
            "iss": f"{self.layout.edge_url}/auth/v1",
            "aud": "authenticated",
            "sub": str(user_id),
            "role": "authenticated",
            "session_id": str(uuid7()),
            "mfa": False,
            "iat": now,
            "exp": now + 3600,
        }
        key: Any = signing.key
        token = jwt.encode(claims, key, algorithm="ES256", headers={"kid": signing.kid})
        self.auth = (("authorization", f"Bearer {token}"),)

    async def round(self, *, message: bool) -> float:
        """One key's life. Seconds from the revocation's answer to the last end of a call that took it."""
        owner = keys_pb2_grpc.KeysServiceStub(self.edge)
        made = await owner.CreateKey(keys_pb2.CreateKeyRequest(name="bench"), metadata=self.auth)
        places = [Place(signing(channel, made.secret), self.pace) for channel in self.signers]
        places += [Place(validating(channel, made.secret), self.pace) for channel in self.keys]
        async with asyncio.TaskGroup() as group:
            for place in places:
                group.create_task(place.run())
            await asyncio.sleep(WARM_UP + random.random() * 0.3)  # noqa: S311  # not a secret
            if message:
                await owner.RevokeKey(keys_pb2.RevokeKeyRequest(key_id=made.key.id), metadata=self.auth)
            else:
                await self.sql.execute(
                    "UPDATE public.api_keys SET revoked_at = now(), is_active = false WHERE id = $1",
                    made.key.id,
                )
            answered = time.monotonic()
        if any(place.last_taken == 0.0 for place in places):
            raise RuntimeError("in one place the key never worked: nothing was measured")
        return max(0.0, *(place.last_taken - answered for place in places))


def signing(channel: aio.Channel, secret: str) -> Use:
    """`Sign` at one signer."""
    stub = signer_pb2_grpc.SignerServiceStub(channel)
    request = signer_pb2.SignRequest(room_url="https://www.tiktok.com/@bench/live")
    metadata = (("x-api-key", secret),)

    async def use() -> bool:
        try:
            await stub.Sign(request, metadata=metadata)
        except SigngateError as error:
            if error.reason == "KEY_REVOKED":
                return False
            # A quota service that is short of breath is asked only for keys that have been taken.
            if not error.reason.startswith("QUOTA_"):
                raise
        return True

    return use


def validating(channel: aio.Channel, secret: str) -> Use:
    """`ValidateKeys` at one keys replica."""
    stub = validation_pb2_grpc.KeyValidationServiceStub(channel)
    request = validation_pb2.ValidateKeysRequest(credentials=[validation_pb2.KeyCredential(secret=secret)])

    async def use() -> bool:
        (result,) = (await stub.ValidateKeys(request)).results
        if result.HasField("refusal") and result.refusal.reason != "KEY_REVOKED":
            raise RuntimeError(result.refusal.reason)
        return result.HasField("key")

    return use


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank, upwards."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def describe(name: str, seconds: Sequence[float]) -> dict[str, Any]:
    """Print a distribution and return it, in milliseconds."""
    ms = [value * 1000 for value in seconds]
    found = {
        "rounds": len(ms),
        "p50_ms": round(statistics.median(ms), 1),
        "p90_ms": round(percentile(ms, 0.90), 1),
        "p99_ms": round(percentile(ms, 0.99), 1),
        "max_ms": round(max(ms), 1),
    }
    print(
        f"\n{name}: " + ", ".join(f"{key.removesuffix('_ms')} {value}" for key, value in found.items()),
        "(ms)",
    )
    edges = [0, 10, 25, 50, 75, 100, 150, 200, 250]
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        count = sum(low <= value and (high is None or value < high) for value in ms)
        label = f"{low:>4} to {high}" if high is not None else f"{low:>4} up"
        print(f"  {label:<12} {count:>4} {'#' * round(60 * count / len(ms))}")
    return found


async def measure(layout: Layout, rounds: int, pace: float) -> dict[str, Any]:
    """Both distributions."""
    async with AsyncExitStack() as stack:
        sql = await asyncpg.connect(secrets.dsn(layout, secrets.SUPERUSER))
        stack.push_async_callback(sql.close)

        async def channel(address: str, service: str | None = None) -> aio.Channel:
            peer = secrets.peer(layout, "signer", service) if service else None
            return await stack.enter_async_context(create_channel(address, peer=peer))

        bench = Bench(
            layout,
            pace,
            sql,
            await channel(f"{HOST}:{layout.port('edge')}"),
            [await channel(instance.address("grpc")) for instance in layout.instances("signer")],
            [await channel(instance.address("grpc"), "keys") for instance in layout.instances("keys")],
        )
        await bench.login()
        await asyncio.sleep(1.5)  # quota sees the plan
        found = {}
        for name, message in (("message", True), ("lost message", False)):
            found[name] = describe(name, [await bench.round(message=message) for _ in range(rounds)])
        return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100, help="revocations each way")
    parser.add_argument("--pace", type=float, default=0.010, help="seconds between calls in each place")
    arguments = parser.parse_args()
    layout = Layout(run=ROOT / ".run-revocation", shift=7_000, replicas={"signer": 2, "keys": 2})
    stack = Stack(layout)
    stack.destroy()
    stack.up()
    try:
        found = asyncio.run(measure(layout, arguments.rounds, arguments.pace))
    finally:
        stack.destroy()
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    good = all(distribution["p99_ms"] < PROMISE * 1000 for distribution in found.values())
    print(f"\np99 under {PROMISE * 1000:.0f} ms: {'yes' if good else 'NO'}")
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
