"""What it costs to validate keys, against the number of keys there are.

The rows are written as SQL writes them fastest; ids, users and plans are as real ones. Two ways of asking:
for the same few keys again and again (`warm`, from the service's memory), and for keys that nobody asked for
before (`cold`, each list one look-up in PostgreSQL).
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any
from uuid import UUID

import asyncpg
import grpc

from bench.growth.curves import Curve
from bench.progress import Say
from bench.world import Credential, World
from deploy.local import secrets
from servicekit import apikey
from servicekit.clock import SystemEntropy
from services.keys.peppers import Keyring, hmac_sha256
from signgate.keys.v1 import validation_pb2 as pb
from signgate.keys.v1 import validation_pb2_grpc

LIST = 16
LISTS = 20
"""Of cold keys, a size; each is asked for once."""
WARM_LISTS = 200
CHUNK = 1_000_000
PER_USER = 10
# Ids as UUIDv7 are, one a millisecond; hashes in any order, for nothing looks a key up by them.
_id = (
    "('01900000-' || lpad(to_hex(%s >> 16), 4, '0') || '-7' || lpad(to_hex(%s & 4095), 3, '0')"
    " || '-8000-' || lpad(to_hex(%s), 12, '0'))::uuid"
)
_users = f"""
INSERT INTO public.users (id, email)
SELECT {_id % (("n",) * 3)}, n || '@growth.test' FROM generate_series($1::bigint, $2::bigint - 1) AS n
"""  # noqa: S608  # constants only
_keys = f"""
INSERT INTO public.api_keys (id, user_id, key_hash, name)
SELECT {_id % (("n",) * 3)}, {_id % ((f"n / {PER_USER}",) * 3)}, lpad(to_hex(n), 64, '0'), 'growth'
FROM generate_series($1::bigint, $2::bigint - 1) AS n
"""  # noqa: S608  # constants only


async def validation(world: World, sizes: tuple[int, ...], say: Say) -> list[Curve]:
    """Milliseconds a list of warm keys, and of cold ones."""
    warm = Curve("validate_warm", "keys", f"ms to validate {LIST} keys, asked for before")
    cold = Curve("validate_cold", "keys", f"ms to validate {LIST} keys, never asked for")
    pepper = Keyring.parse(secrets.read(world.layout, "key_pepper"))
    credential = world.credential("signer", "keys")
    sql = await world.sql()
    try:
        async with grpc.aio.insecure_channel(world.address("keys")) as channel:
            stub: Any = validation_pb2_grpc.KeyValidationServiceStub(channel)
            there = 0
            for size in sizes:
                await _fill(sql, there, size)
                fresh = await _real(sql, random.sample(range(there, size), LIST * LISTS), pepper)
                there = size
                lists = [fresh[at : at + LIST] for at in range(0, len(fresh), LIST)]
                known = [account.secret for account in world.accounts[:LIST]]
                await _asked(stub, credential, known)
                warm.add(size, [await _asked(stub, credential, known) for _ in range(WARM_LISTS)])
                cold.add(size, [await _asked(stub, credential, keys) for keys in lists])
                say(f"{size:,} keys: warm {warm.medians[size]:.2f} ms, cold {cold.medians[size]:.2f} ms")
    finally:
        await sql.close()
    return [warm, cold]


async def _fill(sql: asyncpg.Connection[Any], there: int, size: int) -> None:
    # Triggers and foreign keys are not looked at row by row: what is written is as they want it.
    await sql.execute("SET session_replication_role = replica")
    for first in range(there, size, CHUNK):
        await sql.execute(_keys, first, min(first + CHUNK, size), timeout=300)
    await sql.execute(_users, there // PER_USER, size // PER_USER, timeout=300)
    await sql.execute("RESET session_replication_role")
    await sql.execute("VACUUM (ANALYZE, FREEZE) public.api_keys, public.users", timeout=300)
    await sql.execute("CHECKPOINT", timeout=300)


async def _real(sql: asyncpg.Connection[Any], numbers: list[int], pepper: Keyring) -> list[str]:
    """Give some of the rows the hash of a key that there is; returns those keys."""
    digest = hmac_sha256(pepper.secrets[pepper.current])
    rows = await sql.fetch(
        f"SELECT {_id % (('n',) * 3)} AS id FROM unnest($1::bigint[]) AS n",  # noqa: S608  # constants only
        numbers,
    )
    found = [apikey.mint("live", UUID(bytes=row["id"].bytes), SystemEntropy()) for row in rows]
    await sql.execute("SET session_replication_role = replica")
    await sql.executemany(
        "UPDATE public.api_keys SET key_hash = $2, pepper_version = $3 WHERE id = $1",
        [
            (row["id"], digest(secret.encode()).hex(), pepper.current)
            for row, secret in zip(rows, found, strict=True)
        ],
    )
    await sql.execute("RESET session_replication_role")
    return found


async def _asked(stub: Any, credential: Credential, keys: list[str]) -> float:
    request = pb.ValidateKeysRequest(credentials=[pb.KeyCredential(secret=secret) for secret in keys])
    began = time.perf_counter()
    answer = await stub.ValidateKeys(request, timeout=10, metadata=credential())
    taken = (time.perf_counter() - began) * 1000
    if not all(result.HasField("key") for result in answer.results):
        raise RuntimeError("a key that is there is not taken")
    return taken


def measure(world: World, sizes: tuple[int, ...], say: Say) -> list[Curve]:
    """`validation`, from outside an event loop."""
    return asyncio.run(validation(world, sizes, say))
