"""S12 on the real stack: an account that may not act is refused by every service, whatever it shows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import grpc
import httpx
import pytest

from servicekit.rpc.status import from_rpc_error
from signgate.keys.v1 import keys_pb2, keys_pb2_grpc
from signgate.signer.v1 import signer_pb2 as pb
from signgate.signer.v1 import signer_pb2_grpc
from signgate.usage.v1 import usage_pb2, usage_pb2_grpc
from tests.conftest import Running
from tests.e2e.conftest import Account

SCOPES = ["sign", "usage:read", "quota:read", "profile:read", "keys:read"]
NEW = {"X-Supabase-Api-Version": "2024-01-01"}
ROWS = 150_000
FILL = """
INSERT INTO usage_logs (id, user_id, api_key_id, room_url, success, response_time_ms, created_at, engine)
SELECT gen_random_uuid(), k.user_id, k.id, 'https://www.tiktok.com/@someone' || n || '/live', true, 5,
       now() - make_interval(secs => n), 'native'
FROM api_keys k, generate_series(1, $2) n WHERE k.id = $1
"""

# How an account stops, over the administrators' HTTP face, and what its key is refused with then.
WAYS: dict[str, tuple[str, dict[str, Any], str]] = {
    "ban": ("PUT", {"ban_duration": "24h"}, "USER_INACTIVE"),
    "deactivation": ("PUT", {"is_active": False}, "USER_INACTIVE"),
    "unconfirming": ("PUT", {"email_confirm": False}, "USER_INACTIVE"),
    "soft deletion": ("DELETE", {"should_soft_delete": True}, "KEY_REVOKED"),
}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def ended(call: Any) -> str:
    """The reason for which a stream ends that is left alone."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await asyncio.wait_for(call.read(), 60) is not grpc.aio.EOF:
            pass
        raise AssertionError("the stream went on")
    return from_rpc_error(caught.value).reason


async def open_stream(stub: Any, metadata: Any) -> Any:
    """A stream that has signed once."""
    call = stub.SignStream(metadata=metadata)
    await call.write(pb.SignStreamRequest(tag=1, request=pb.SignRequest(room_url="@someone")))
    assert (await call.read()).result.HasField("signature")
    return call


@pytest.mark.parametrize("way", WAYS)
async def test_every_service_refuses_every_credential(
    running: Running, service_role: str, new_account: Callable[[], Account], way: str
) -> None:
    """Key, derived token and access token, at all five services; open streams end."""
    method, change, reason = WAYS[way]
    account = await asyncio.to_thread(new_account)
    token = account.session.access_token
    async with (
        grpc.aio.insecure_channel(running.edge) as channel,
        httpx.AsyncClient(base_url=running.edge_url, timeout=30) as http,
    ):
        keys: Any = keys_pb2_grpc.KeysServiceStub(channel)
        signer: Any = signer_pb2_grpc.SignerServiceStub(channel)
        wanted = keys_pb2.CreateKeyRequest(name="all", scopes=SCOPES)
        key = (await keys.CreateKey(wanted, metadata=tuple(bearer(token).items()))).secret
        minted = (await keys.MintToken(keys_pb2.MintTokenRequest(), metadata=(("x-api-key", key),))).token
        by_key = {"key": {"x-api-key": key}, "derived token": {"x-api-key": minted}}
        shown = {**by_key, "access token": bearer(token)}
        streams = {name: await open_stream(signer, tuple(headers.items())) for name, headers in shown.items()}

        async def refusals() -> dict[tuple[str, str], str]:
            """The outcome of every call with every credential."""
            found = {}
            for name, headers in shown.items():
                calls: dict[str, Any] = {
                    "sign": http.post("/v1/sign", json={"room_url": "@someone"}, headers=headers),
                    "quota": http.get("/v1/quota", headers=headers),
                    "usage": http.get("/v1/usage", headers=headers),
                    "keys": http.get("/v1/keys", headers=headers),
                    "user": http.get("/auth/v1/user", headers={**headers, **NEW}),
                }
                for what, call in calls.items():
                    answer = await call
                    found[name, what] = "OK" if answer.status_code == 200 else answer.text.upper()
            return found

        before = await refusals()
        assert set(before.values()) == {"OK"}

        path = f"/auth/v1/admin/users/{account.session.user.id}"
        done = await http.request(method, path, json=change, headers={**bearer(service_role), **NEW})
        assert done.status_code == 200

        # Sessions at once; keys as soon as their records were read again.
        answer = await http.post("/v1/sign", json={"room_url": "@someone"}, headers=shown["access token"])
        assert "SESSION_REVOKED" in answer.text
        async with asyncio.timeout(30):
            while "OK" in (await refusals()).values():
                await asyncio.sleep(0.05)
        for (name, what), text in (await refusals()).items():
            expected = reason if name in by_key else "SESSION_REVOKED"
            assert expected in text or (name, what) == ("access token", "user"), (name, what, text)
        for name, call in streams.items():
            assert await ended(call) == (reason if name in by_key else "SESSION_REVOKED"), name
        password = {"email": account.email, "password": account.password}
        signed_in = await http.post("/auth/v1/token", params={"grant_type": "password"}, json=password)
        assert signed_in.status_code in (400, 403)
        refresh = {"refresh_token": account.session.refresh_token}
        refreshed = await http.post("/auth/v1/token", params={"grant_type": "refresh_token"}, json=refresh)
        assert refreshed.status_code == 400


async def test_a_ban_ends_a_running_export_and_its_end_brings_the_key_back(
    running: Running, service_role: str, new_account: Callable[[], Account]
) -> None:
    """A change by hand, as at Supabase's dashboard; the key's refusal says until when."""
    account = await asyncio.to_thread(new_account)
    user_id = account.session.user.id
    database: Any = await asyncpg.connect(running.dsn(), command_timeout=120)
    try:
        await database.execute(FILL, account.key_id, ROWS)
        async with (
            grpc.aio.insecure_channel(running.edge) as channel,
            httpx.AsyncClient(base_url=running.edge_url, timeout=30) as http,
        ):
            usage: Any = usage_pb2_grpc.UsageServiceStub(channel)
            credential = {"x-api-key": account.key}
            export = usage.ExportUsage(usage_pb2.ExportUsageRequest(), metadata=tuple(credential.items()))
            await export.read()
            await database.execute(
                "UPDATE auth.users SET banned_until = '2999-12-31T23:59:59Z' WHERE id = $1::text::uuid",
                user_id,
            )
            assert await slowly(export) == "USER_INACTIVE"
            answer = await http.get("/v1/quota", headers=credential)
            assert answer.status_code == 401
            assert "banned until 2999-12-31T23:59:59Z" in answer.text
            # The access token too, though only the database was told.
            async with asyncio.timeout(30):
                while (
                    await http.get("/v1/quota", headers=bearer(account.session.access_token))
                ).status_code == 200:
                    await asyncio.sleep(0.05)

            lifted = await http.put(
                f"/auth/v1/admin/users/{user_id}", json={"ban_duration": "none"}, headers=bearer(service_role)
            )
            assert lifted.json()["state"] == "active"
            async with asyncio.timeout(30):
                while (await http.get("/v1/quota", headers=credential)).status_code != 200:
                    await asyncio.sleep(0.05)
            still = await http.get("/v1/quota", headers=bearer(account.session.access_token))
            assert "SESSION_REVOKED" in still.text
    finally:
        await database.close()


async def slowly(export: Any) -> str:
    """Read on, a part at a time, until it breaks off; the reason."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        while await asyncio.wait_for(export.read(), 30) is not grpc.aio.EOF:
            await asyncio.sleep(0.1)
        raise AssertionError("the export came to its end")
    return from_rpc_error(caught.value).reason
