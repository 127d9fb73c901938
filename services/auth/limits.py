"""Rate limits in Redis, shared by all replicas: sliding windows by the library `limits`.

A counter always has two numbers: the previous window, weighted by its overlap with the sliding window, and
the current one. Unauthenticated callers determine the number of counters, so these have a separate store
(deploy/redis/limits.conf). The limits by address come first: an address over its limit creates no counters
for accounts.

A limit is named for what it counts and for whom. An IPv6 address counts as its /64, the smallest network of
one customer, and against a looser limit as its /48, the largest that many providers give to one. Names of
accounts go into Redis as a keyed hash, for a key in Redis is a place where an address must not stand. Fails
closed: while Redis is away nothing can be counted, so nothing that is limited is done (`RedisUnavailable`);
access tokens can't be checked against the deny-set then either.

The name of an account is public, so a counter by that name alone would let strangers lock its owner out.
Callers that the account knows (`Familiar`) are counted apart: they neither fill what strangers fill nor are
stopped by it (docs/adr/0018).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol
from urllib.parse import parse_qsl

from limits import RateLimitItem, parse
from limits.aio.storage import RedisClusterStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import BlockingConnectionPool

from servicekit import redis_tls
from servicekit.addresses import bucket, site
from servicekit.clock import Clock
from servicekit.errors import QuotaFacts, ResourceExhausted
from servicekit.redis import translated
from services.auth.domain import Client
from services.auth.errors import EmailRateLimit, RequestRateLimit
from services.auth.metrics import RATE_LIMITED

Action = Literal[
    "sign_in",
    "sign_up",
    "verify",
    "refresh",
    "mail",
    "nonce",
    "notice",
    "key_notice",
    "factor",
    "factor_wrong",
]
By = Literal["ip", "net", "account", "account_ip", "client", "group"]
"""Of an account, `account` counts all callers together; `account_ip` each address, or device that the account
knows; `client` strangers together, and each client that the account knows by itself; `group` strangers
together, and those that it knows together.
"""

_connections: Final = 16
_patience: Final = 2
"""Seconds that a count may wait for one of them."""

_once_a_day: Final = parse("1 per day")

# setting → what is limited, counted by whom, and how people call it; of each action by address first
LIMITS: Final[Mapping[str, tuple[Action, By, str]]] = {
    "rate_sign_in_ip": ("sign_in", "ip", "sign-ins from your network address"),
    "rate_sign_in_net": ("sign_in", "net", "sign-ins from your network"),
    "rate_sign_in_account_ip": ("sign_in", "account_ip", "sign-ins to this account from your address"),
    "rate_sign_in_account": ("sign_in", "client", "sign-ins to this account"),
    "rate_sign_up_ip": ("sign_up", "ip", "sign-ups from your network address"),
    "rate_sign_up_net": ("sign_up", "net", "sign-ups from your network"),
    "rate_verify_ip": ("verify", "ip", "codes tried from your network address"),
    "rate_verify_net": ("verify", "net", "codes tried from your network"),
    "rate_verify_account": ("verify", "client", "codes tried for this account"),
    "rate_refresh_ip": ("refresh", "ip", "refreshes from your network address"),
    "rate_mail_ip": ("mail", "ip", "mails asked for from your network address"),
    "rate_mail_net": ("mail", "net", "mails asked for from your network"),
    "rate_mail_address": ("mail", "group", "mails to this address"),
    "rate_mail_address_day": ("mail", "group", "mails to this address in a day"),
    "rate_nonce_account": ("nonce", "account", "mails that you asked for"),
    "rate_nonce_account_day": ("nonce", "account", "mails that you asked for in a day"),
    "rate_notice_account": ("notice", "account", "mails on sign-ins"),
    "rate_key_notice": ("key_notice", "account", "mails about this account's keys"),
    "rate_factor_account": (
        "factor",
        "client",
        "tries of the second factor of this account (a sign-in by a mailed code has a separate limit)",
    ),
    "rate_factor_account_day": (
        "factor_wrong",
        "account",
        "wrong second-factor codes for this account (passkeys and recovery codes are still accepted)",
    ),
}
_apart: Final = frozenset(action for action, by, _ in LIMITS.values() if by in ("client", "group"))
"""Actions whose counts depend on whether the account knows the caller."""


class Familiar(Protocol):
    """Which callers an account knows; see `services.auth.service.familiar`."""

    async def known(self, client: Client, account: str) -> str:
        """The client's device or address, if the account (an e-mail address or an id) knows it, else ""."""
        ...


class RateLimits:
    """Counts actions by address and by account. `rates` are settings by the names of `LIMITS`.

    Without `familiar` every caller is a stranger.
    """

    def __init__(
        self,
        url: str,
        rates: Mapping[str, str],
        pepper: str,
        clock: Clock,
        familiar: Familiar | None = None,
        **redis: Any,
    ) -> None:
        storage: RedisStorage | RedisClusterStorage
        # The library's own type for its options knows numbers and texts only.
        self._pool: Any = None
        if "+cluster://" in url:
            # The library knows no scheme for a cluster by TLS, and takes no options from the URL.
            plain, _, options = url.partition("?")
            if plain.startswith("rediss"):
                plain = plain.replace("rediss", "redis", 1)
                redis |= {**dict(parse_qsl(options)), "ssl": True}
            storage = RedisClusterStorage(
                f"async+{plain}", implementation="redispy", key_prefix="auth:rate", **redis
            )
        else:
            # What waits for a connection takes no memory of the store; connections do, some 20 KB each.
            self._pool = BlockingConnectionPool.from_url(
                url, max_connections=_connections, timeout=_patience, **redis
            )
            storage = RedisStorage(
                f"async+{url}",
                implementation="redispy",
                key_prefix="auth:rate",
                connection_pool=self._pool,
            )
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._storage: Any = storage
        bridge: Any = storage.bridge  # typed without what it has for Redis
        redis_tls.share(bridge.get_connection())
        self._clock = clock
        self._familiar = familiar
        self._key = hashlib.sha256(f"signgate.auth.rate|{pepper}".encode()).digest()
        self._items = {name: parse(text) for name, text in rates.items()}

    async def hit(self, action: Action, client: Client, account: str = "") -> None:
        """Count one action against all its limits, or raise the first that is used up.

        `account` is whose account it is about: an address or an id; unknown ones count alike. Limits by
        address are passed over where the caller's address is not known.
        """
        await self.hit_address(action, client)
        if account:
            await self.hit_account(action, client, account)

    async def hit_address(self, action: Action, client: Client) -> None:
        """The part of `hit` that looks at the caller's address alone: cheap, and the same for any account."""
        await self._hit(action, {"ip": bucket(client.ip), "net": site(client.ip)})

    async def hit_account(self, action: Action, client: Client, account: str) -> str:
        """The other part. Returns the device or address by which the account knows the caller, or "".

        That is looked up in the database, where an account that exists may take longer: callers who must
        not see the difference are answered evenly (`EvenAnswers`).
        """
        asks = self._familiar if action in _apart else None
        known = await asks.known(client, account) if asks else ""
        here = known or bucket(client.ip)
        everyone, this_client = self._hashed(account), self._hashed(f"{account}|{here}")
        whose: dict[By, str] = {
            "account": everyone,
            "account_ip": this_client if here else "",
            "client": this_client if known else everyone,
            "group": self._hashed(f"{account}|known") if known else everyone,
        }
        await self._hit(action, whose)
        return known

    async def forgive(self, client: Client, account: str, known: str = "") -> None:
        """A right password takes back what the wrong ones before it counted from there.

        `known` is what `hit_account` returned.
        """
        name = "rate_sign_in_account_ip"
        if here := known or bucket(client.ip):
            with translated():
                await self._limiter.clear(self._items[name], name, self._hashed(f"{account}|{here}"))

    async def close(self) -> None:
        """Close the connections."""
        await self._storage.bridge.get_connection().aclose()
        if self._pool is not None:
            await self._pool.disconnect()

    async def _hit(self, action: Action, whose: Mapping[By, str]) -> None:
        """Count against the limits by these, in the table's order; "" is counted by none."""
        for name, (limited, by, spoken) in LIMITS.items():
            who = whose.get(by, "")
            if limited != action or not who:
                continue
            item = self._items[name]
            with translated():
                if await self._limiter.hit(item, name, who):
                    continue
                reset_at = (await self._limiter.get_window_stats(item, name, who)).reset_time
            RATE_LIMITED.labels(name).inc()
            raise self._over(action, name, spoken, item, reset_at)

    async def check(self, action: Action, account: str) -> None:
        """Raise if one of the limits is used up; count nothing."""
        for name, item, who, spoken in self._of(action, account):
            with translated():
                if await self._limiter.test(item, name, who):
                    continue
                reset_at = (await self._limiter.get_window_stats(item, name, who)).reset_time
            RATE_LIMITED.labels(name).inc()
            raise self._over(action, name, spoken, item, reset_at)

    async def count(self, action: Action, account: str, notable: int) -> bool:
        """Count one. True once there are `notable` ones, or as many as a limit allows."""
        reached = False
        for name, item, who, _ in self._of(action, account):
            with translated():
                await self._limiter.hit(item, name, who)
                left = (await self._limiter.get_window_stats(item, name, who)).remaining
            reached = reached or item.amount - left >= min(notable, item.amount)
        return reached

    async def once(self, what: str, account: str) -> bool:
        """True for the first call in a day, over all replicas."""
        with translated():
            return await self._limiter.hit(_once_a_day, what, self._hashed(account))

    async def clear(self, action: Action, account: str) -> None:
        """Forget what was counted for an account."""
        for name, item, who, _ in self._of(action, account):
            with translated():
                await self._limiter.clear(item, name, who)

    def _of(self, action: Action, account: str) -> list[tuple[str, RateLimitItem, str, str]]:
        who = self._hashed(account)
        return [
            (name, self._items[name], who, spoken)
            for name, (limited, by, spoken) in LIMITS.items()
            if limited == action and by == "account"
        ]

    def _hashed(self, text: str) -> str:
        return hashlib.blake2b(text.encode(), key=self._key, digest_size=16).hexdigest()

    def _over(
        self, action: Action, name: str, spoken: str, item: RateLimitItem, reset_at: float
    ) -> ResourceExhausted:
        wait = max(reset_at - self._clock.time(), 1.0)
        until = datetime.fromtimestamp(reset_at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        kind = EmailRateLimit if action in ("mail", "nonce", "key_notice") else RequestRateLimit
        return kind(
            f"Too many {spoken}: the limit is {_rate(item)}. Try again at {until}.",
            metadata={"limit": name.removeprefix("rate_")},
            retry_after=wait,
            quota=QuotaFacts(name.removeprefix("rate_"), item.amount, 0, wait, reset_at),
        )


def _rate(item: RateLimitItem) -> str:
    """Such as `6 per 10 minutes`: the library's own text knows no plural."""
    span = item.GRANULARITY.name
    return f"{item.amount} per {span if item.multiples == 1 else f'{item.multiples} {span}s'}"
