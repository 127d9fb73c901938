"""What the tests share: two users who own a row in every table, and acting as one of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from uuid import UUID, uuid4

import asyncpg

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
    Connect: TypeAlias = Callable[[str], Awaitable[Connection]]

LOGINS = ("signgate_auth", "signgate_keys", "signgate_quota", "signgate_logger")


@dataclass(frozen=True)
class User:
    id: UUID
    email: str
    key: UUID  # an API key of theirs
    key_hash: str


@asynccontextmanager
async def acting(connection: Connection, role: str, user: UUID | None = None) -> AsyncIterator[None]:
    """A transaction as a role, with a user's claims: what an interface over SQL does, as Supabase's."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL ROLE {role}")
        if user is not None:
            claims = json.dumps({"sub": str(user), "role": role})
            await connection.execute("SELECT set_config('request.jwt.claims', $1, true)", claims)
        yield


@asynccontextmanager
async def for_caller(connection: Connection, user: User) -> AsyncIterator[None]:
    """A transaction with a user's claims, as the connected role: what a service does for its caller."""
    async with connection.transaction():
        claims = json.dumps({"sub": str(user.id), "role": "authenticated"})
        await connection.execute("SELECT set_config('request.jwt.claims', $1, true)", claims)
        yield


async def make_user(admin: Connection, name: str) -> User:
    """An account with a row in every table that can hold one of a user's."""
    user = User(uuid4(), f"{name}@example.com", uuid4(), f"hash-{uuid4()}")
    session, factor, flow = uuid4(), uuid4(), uuid4()
    await admin.execute(f"""
        INSERT INTO auth.users (id, email, email_confirmed_at) VALUES ('{user.id}', '{user.email}', now());
        INSERT INTO auth.identities (user_id, provider, provider_id)
            VALUES ('{user.id}', 'email', '{user.id}');
        INSERT INTO auth.sessions (user_id, id) VALUES ('{user.id}', '{session}');
        INSERT INTO auth.refresh_tokens (user_id, session_id, token_hash)
            VALUES ('{user.id}', '{session}', 'refresh-{session}');
        INSERT INTO auth.flow_state (user_id, id, code_challenge, code_challenge_method,
                                     authentication_method, expires_at)
            VALUES ('{user.id}', '{flow}', repeat('c', 43), 's256', 'otp', now());
        INSERT INTO auth.one_time_tokens (user_id, flow_state_id, purpose, email, code_hash, expires_at)
            VALUES ('{user.id}', '{flow}', 'signup', '{user.email}', 'h', now());
        INSERT INTO auth.mfa_factors (user_id, id, factor_type, secret)
            VALUES ('{user.id}', '{factor}', 'totp', 'x');
        INSERT INTO auth.mfa_challenges (factor_id, expires_at) VALUES ('{factor}', now());
        INSERT INTO auth.mfa_recovery_codes (user_id, code_hash) VALUES ('{user.id}', 'h');
        INSERT INTO auth.known_clients (user_id, kind, hash) VALUES ('{user.id}', 'address', repeat('a', 64));
        INSERT INTO auth.audit_log (user_id, action, actor_kind) VALUES ('{user.id}', 'login', 'user');
        INSERT INTO api_keys (user_id, id, key_hash, name)
            VALUES ('{user.id}', '{user.key}', '{user.key_hash}', 'first');
        INSERT INTO key_answers (user_id, lookup, sealed)
            VALUES ('{user.id}', decode(repeat('00', 32), 'hex'), 'x');
        INSERT INTO user_plan_overrides (user_id, pool, daily_limit) VALUES ('{user.id}', 'free', 7);
        INSERT INTO quota_usage (user_id, date, request_count) VALUES ('{user.id}', '2026-01-01', 3);
        INSERT INTO api_key_quota_usage (user_id, api_key_id, date, request_count)
            VALUES ('{user.id}', '{user.key}', '2026-01-01', 2);
        INSERT INTO usage_logs (user_id, api_key_id, room_url, success, response_time_ms, created_at)
            SELECT '{user.id}', '{user.key}', 'u', true, 1, day
            FROM unnest(ARRAY[now(), now() - interval '1 month', '2001-01-01']) AS day;
        INSERT INTO alert_settings (user_id, webhook_url, webhook_secret)
            VALUES ('{user.id}', 'https://a.example/', 'x');
        INSERT INTO quota_alerts (user_id, pool, date, threshold, used, daily_limit, mail, webhook)
            VALUES ('{user.id}', 'free', '2001-01-01', 80, 8, 10, 'sent', 'off');
        INSERT INTO usage_hours VALUES ('{user.id}', '2001-01-01', '{user.key}', true, '', '', 1, 1, 1, 1);
        INSERT INTO usage_days VALUES ('{user.id}', '2001-01-01', '{user.key}', true, '', '', 1, 1, 1, 1);
    """)
    return user


async def refused(connection: Connection, sql: str, *args: object) -> bool:
    """True when it is refused by a privilege or a policy; the transaction stays usable."""
    try:
        async with connection.transaction():
            await connection.execute(sql, *args)
    except asyncpg.InsufficientPrivilegeError:
        return True
    return False
