"""`sql`: the seed's design. One service, `Sign`, every request through PostgreSQL's functions.

    BASELINE_DSN=… python -m bench.baselines.sql <port> four|one <connections> <signing keys>

`four`: validate_api_key, check_user_quota_limit, update_quota_usage, log_api_usage, each a round trip by
one connection of the pool, prepared. `one`: one function that does all four. The engine, the parsing of
URLs and the writing of answers are Signgate's own: what differs is the way to the counters and rows.

Commits wait for the disk, as PostgreSQL's do by default and Signgate's Redis does (appendfsync always).
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from time import monotonic, time
from typing import Any, Final

import asyncpg
import grpc
import uuid_utils
from grpc.aio import ServicerContext

from bench.baselines.serving import new_loop, serve
from servicekit.apikey import check
from servicekit.authn import find_credential
from servicekit.clock import SystemClock
from servicekit.errors import SigngateError
from servicekit.keyset import KeySetFile
from services.keys.peppers import hmac_sha256
from services.signer import messages
from services.signer.domain import Signed, SignRequest
from services.signer.engines.native import NativeEngine
from services.signer.engines.signing_keys import SigningKeys
from services.signer.jobs import Limit, Part
from services.signer.room_url import parse
from signgate.signer.v1 import signer_pb2 as pb

PEPPER: Final = b"a pepper of the baseline's own"
LIMIT: Final = 10**12
SCHEMA: Final = Path(__file__).with_name("seed.sql")
_day: Final = 86_400

digest = hmac_sha256(PEPPER)


class Refused(Exception):  # as the services name theirs
    """Not signed: an unknown key, or a quota that is used up."""


class Server:
    """`Sign` by SQL."""

    def __init__(self, pool: asyncpg.Pool[Any], engine: NativeEngine) -> None:
        self._pool = pool
        self._engine = engine
        self._writer = messages.Writer()

    async def four(self, request: pb.SignRequest, context: ServicerContext[Any, Any]) -> pb.SignResponse:
        started = monotonic()
        key_hash, part = await self._begin(request, context)
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow("SELECT * FROM validate_api_key($1)", key_hash)
            if row is None:
                raise Refused
            user_id, key_id, _, stale = row
            if stale:
                await connection.execute("SELECT touch_api_key($1)", key_id)
            left = await connection.fetchval("SELECT check_user_quota_limit($1, $2)", user_id, LIMIT)
            if left <= 0:
                raise Refused
            await self._sign(part)
            used = await connection.fetchval("SELECT update_quota_usage($1)", user_id)
            took = int((monotonic() - started) * 1000)
            await connection.fetchval(
                "SELECT log_api_usage($1, $2, $3, $4, $5)", part.request_id, user_id, key_id, part.url, took
            )
        return self._answer(part, LIMIT - used, context)

    async def one(self, request: pb.SignRequest, context: ServicerContext[Any, Any]) -> pb.SignResponse:
        started = monotonic()
        key_hash, part = await self._begin(request, context)
        await self._sign(part)
        row = await self._pool.fetchrow(
            "SELECT * FROM sign_request($1, $2, $3, $4, $5)",
            *(key_hash, LIMIT, part.request_id, part.url, int((monotonic() - started) * 1000)),
        )
        if row is None:
            raise Refused
        return self._answer(part, row[1], context)

    async def _begin(self, request: pb.SignRequest, context: ServicerContext[Any, Any]) -> tuple[str, Part]:
        try:
            credential = find_credential(context.invocation_metadata())  # type: ignore[arg-type]  # pairs
            if credential is None:
                raise Refused
            check(credential.secret)
            wish = messages.wish(request)
            part = Part(str(uuid_utils.uuid7()), wish, parse(wish.room_url), None)
        except SigngateError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
        return digest(credential.secret.encode()).hex(), part

    async def _sign(self, part: Part) -> None:
        (signed,) = await self._engine.sign([_asked(part)])
        if not isinstance(signed, Signed):
            raise Refused
        part.signed = signed

    def _answer(self, part: Part, remaining: int, context: ServicerContext[Any, Any]) -> pb.SignResponse:
        answer = pb.SignResponse(request_id=part.request_id)
        self._writer.signature(part, answer.signature)
        reset = (int(time()) // _day + 1) * _day
        messages.write_limit(Limit("user_day", LIMIT, remaining, reset), answer.quota)
        context.set_trailing_metadata(
            (
                ("x-request-id", part.request_id),
                ("ratelimit-limit", str(LIMIT)),
                ("ratelimit-remaining", str(remaining)),
                ("ratelimit-reset", str(reset - int(time()))),
                ("x-ratelimit-reset", str(reset)),
            )
        )
        return answer


def _asked(part: Part) -> SignRequest:
    return part.request(None)


async def main(port: int, dsn: str, way: str, connections: int, keys_file: str) -> None:
    clock = SystemClock()
    engine = NativeEngine(SigningKeys(KeySetFile(Path(keys_file), clock).current), clock)
    await engine.start()
    await engine.canary()
    async with asyncpg.create_pool(
        dsn,
        min_size=connections,
        max_size=connections,
        server_settings={"jit": "off"},
        # The driver's clean-up after each use is a round trip more; nothing here needs it.
        reset=_nothing,
    ) as pool:
        server = Server(pool, engine)
        await serve(server.four if way == "four" else server.one, port)


async def _nothing(_: object) -> None:
    return None


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(
            main(int(sys.argv[1]), os.environ["BASELINE_DSN"], sys.argv[2], int(sys.argv[3]), sys.argv[4])
        )
