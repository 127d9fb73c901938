"""What load and checks need of a running system, however it runs, and what makes its users."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from typing import Any, Final, Protocol

import asyncpg
import redis

from signgate_client import Signgate

SHARDS: Final = 4
PLENTY: Final = 1_000_000_000
UNBOUND: Final = 1_000_000


@dataclass(frozen=True)
class User:
    """One user with a key. `daily`: signatures a UTC day; `per_minute` and `burst`: of its rate."""

    name: str
    daily: int = PLENTY
    per_minute: int = 10_000_000
    burst: int = UNBOUND
    user_id: str = ""
    key: str = field(default="", repr=False)

    @property
    def limited(self) -> bool:
        """Whether it has a day's limit that it reaches."""
        return self.daily < PLENTY

    @property
    def steady(self) -> bool:
        """Whether nothing limits it."""
        return not self.limited and self.burst >= UNBOUND

    @property
    def interval(self) -> float:
        """Seconds between two signatures of its rate."""
        return 60 / self.per_minute


class System(Protocol):
    """A running stack with users."""

    @property
    def users(self) -> list[User]:
        """Those who have keys."""
        ...

    @property
    def edge(self) -> str:
        """Envoy, as a gRPC target."""
        ...

    async def sql(self) -> asyncpg.Connection[Any]:
        """A superuser's connection; the caller closes it."""
        ...

    def drain(self, seconds: float) -> None:
        """Return when every entry of the streams is acknowledged. Raises `TimeoutError`."""
        ...

    def dead_letters(self) -> int:
        """Entries that were set aside."""
        ...

    def reconcile(self) -> list[str]:
        """What the system's own reconciliation finds. Raises when it can't compare."""
        ...


def drain(server: redis.Redis, seconds: float) -> None:
    """See `System`."""
    end = time.monotonic() + seconds
    while not all(_drained(server, f"usage:{{{shard}}}") for shard in range(SHARDS)):
        if time.monotonic() > end:
            raise TimeoutError("the loggers do not get to the streams' ends")
        time.sleep(0.1)


def dead_letters(server: redis.Redis) -> int:
    """See `System`."""
    return sum(int(server.xlen(name)) for name in server.scan_iter("usage:dead*"))


def _drained(server: redis.Redis, stream: str) -> bool:
    if not server.exists(stream):
        return True
    last: Any = server.xinfo_stream(stream)
    groups: Any = server.xinfo_groups(stream)
    return all(
        group["pending"] == 0 and group["last-delivered-id"] == last["last-generated-id"] for group in groups
    )


def sign_up(edge: str, user: User, mails: Callable[[str], Iterable[bytes]], password: str = "") -> User:
    """As a stranger would, through the edge. `mails`: what an address has been sent so far."""
    address, password = f"{user.name}@chaos.test", password or secrets.token_urlsafe(18)
    with Signgate(edge) as anyone:
        anyone.sign_up(address, password)
        session = anyone.confirm(address, _code(mails, address))
    with Signgate(edge, access_token=session.access_token) as owner:
        return replace(user, user_id=session.user.id, key=owner.create_key("chaos").secret)


def _code(mails: Callable[[str], Iterable[bytes]], address: str) -> str:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        for mail in mails(address):
            body = message_from_bytes(mail, policy=policy.default).get_body(("plain",))
            found = re.search(r"\b\d{6}\b", body.get_content() if body else "")
            if found:
                return found.group()
        time.sleep(0.05)
    raise TimeoutError("no mail with a code")


async def grant(system: System) -> None:
    """Give each user their own limits; returns when quota has seen them."""
    sql = await system.sql()
    rows = [(user.user_id, user.daily, user.per_minute, user.burst) for user in system.users]
    await sql.executemany(
        "INSERT INTO user_plan_overrides (user_id, pool, daily_limit, per_minute, burst)"
        " VALUES ($1, 'api_key', $2, $3, $4)",
        rows,
    )
    await sql.close()
    await asyncio.sleep(2.5)
