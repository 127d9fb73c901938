"""Whatever is sent to the HTTP face, no answer is a server error."""

from __future__ import annotations

import json
import random
from typing import Any

from services.auth.http.openapi import OPERATIONS, Operation
from services.auth.limits import LIMITS
from tests.integration.auth.world import World, bearer

NASTY: list[Any] = [
    "", " ", "\0", "\ud800", "é", "🦉" * 50, "a" * 5000, "a@example.com", "a@b", "' OR 1=1 --", "%", "../..",
    "00000000-0000-0000-0000-000000000000", "signup", "recovery", "email_change", "none", "24h",
    "9" * 40 + "h",
    "totp", "http://app.test/\r\nx: y", "password", "ten green bottles", "service_role",
    0, -1, 2**63, 10**30, 1.5, 1e308, True, False, None,
    [], {}, [[]], {"a": {"b": [None, "\0"]}}, {"x": "y"}, {"": 1},
]  # fmt: skip


def body(rng: random.Random, operation: Operation) -> bytes:
    if rng.random() < 0.1:
        return rng.choice([b"", b"[]", b"null", b"{", b"\xff", b'"x"', b"1e999"])
    names = [*operation.body, "unknown"]
    chosen = {name: rng.choice(NASTY) for name in names if rng.random() < 0.8}
    return json.dumps(chosen).encode()


async def test_no_request_makes_a_server_error(world: World) -> None:
    rng = random.Random(20260115)  # noqa: S311
    rates = dict.fromkeys(LIMITS, "100000 per minute")
    async with world.replica(even_answer=0.0, **rates) as auth:
        user, operator = await world.user(), world.operator()
        for operation in OPERATIONS:
            for _ in range(12):
                if operation.needs == "user" and rng.random() < 0.1:
                    user = await world.user()  # the one before may have signed out or gone
                credential = {"user": bearer(user), "admin": bearer(operator), "public": ()}[operation.needs]
                path = operation.path
                for name in ("session_id", "factor_id", "user_id"):
                    odd = rng.choice([user.user.id, "0" * 32, "x", "%00", "é"])
                    path = path.replace(f"{{{name}}}", odd)
                query = {
                    name.rstrip("*"): rng.choice([v for v in NASTY if isinstance(v, str) and v != "\ud800"])
                    for name in operation.query
                }
                answer = await auth.http.request(
                    operation.method,
                    path,
                    params=query,
                    content=body(rng, operation) if operation.body else None,
                    headers={"x-supabase-api-version": "2024-01-01", **dict(credential)},
                )
                assert answer.status_code < 500, (operation.method, path, query, answer.request.content)
                if answer.status_code >= 400:
                    assert answer.json()["code"] == answer.headers["x-sb-error-code"]
