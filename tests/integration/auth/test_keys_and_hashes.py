"""Signing keys and password hashes change under a running service, and nobody notices."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID

import jwt

from servicekit import keyset
from servicekit.testing.network import RedisProcess
from servicekit.testing.postgres import Database
from signgate.auth.v1 import auth_pb2
from tests.integration.auth.world import PASSWORD, World, bearer, replica


async def test_a_rotated_key_signs_and_the_old_one_s_tokens_still_hold(
    world: World, database: Database, redis_process: RedisProcess, tmp_path: Path
) -> None:
    path = tmp_path / "jwt.json"
    assert keyset.main(["new", "--alg", "ES256", "--out", str(path)]) == 0
    email = (await world.user()).user.email
    request = auth_pb2.SignInRequest(email=email, password=PASSWORD)
    async with replica(database, redis_process.url, world.mailbox.port, path) as auth:
        before = (await auth.accounts.SignIn(request)).session
        assert keyset.main(["rotate", "--alg", "ES256", "--out", str(path), "--lead", "0"]) == 0
        async with asyncio.timeout(20):
            while len(published := (await auth.http.get("/.well-known/jwks.json")).json()["keys"]) < 2:
                await asyncio.sleep(0.1)
        after = (await auth.accounts.SignIn(request)).session
        kids = [jwt.get_unverified_header(s.access_token)["kid"] for s in (before, after)]
        assert kids[0] != kids[1]
        assert set(kids) == {key["kid"] for key in published}
        for session in (before, after):
            await auth.accounts.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(session))


async def test_a_hash_of_old_parameters_is_renewed_at_sign_in(world: World) -> None:
    session = await world.user()

    async def stored() -> str:
        found = await world.sql.fetchval(
            "SELECT encrypted_password FROM auth.users WHERE id = $1", UUID(session.user.id)
        )
        return str(found)

    assert "m=8192,t=1" in await stored()
    async with world.replica(argon2_memory_kib=9216, argon2_time_cost=2) as auth:
        request = auth_pb2.SignInRequest(email=session.user.email, password=PASSWORD)
        await auth.accounts.SignIn(request)
    assert "m=9216,t=2" in await stored()
    await world.sign_in(session.user.email)
