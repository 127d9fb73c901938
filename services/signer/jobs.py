"""What travels through the line: jobs of one caller, each of one or more parts, and what peers answer.

Plain mutable objects that belong to one request; only the line writes to them between `submit` and
the answer. `Caller`, `Decision` and `Limit` are what the peers' clients translate their answers to.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from servicekit.authn import Credential
from servicekit.context import CallContext
from servicekit.errors import QuotaFacts, ResourceExhausted, SigngateError
from servicekit.tracing import Traced
from services.signer.domain import Algorithm, Room, Signed, SignRequest
from services.signer.room_url import MAX_LENGTH

FREE: Final = "free"
API_KEY: Final = "api_key"
"""The pools that pay, by the names of their plans."""


class Caller(NamedTuple):
    """Whom a credential belongs to, and what the charge and the event need to know of them.

    `pool` pays. `daily_limit` and `per_minute` are the key's own limits, 0 for none. `engine` is the
    key's default, "" for the deployment's.
    """

    user_id: str
    key_id: str
    pool: str
    scopes: frozenset[str]
    daily_limit: int = 0
    per_minute: int = 0
    engine: str = ""


class Refusal(NamedTuple):
    """Why a credential does not hold; whose it is where that is known ("" where not)."""

    error: SigngateError
    user_id: str = ""
    key_id: str = ""


class Identity(NamedTuple):
    """Who asks, as far as it is known before the line: a key to validate, or a verified token's owner."""

    credential: Credential | None
    caller: Caller | None = None
    session_id: str = ""


class Limit(NamedTuple):
    """A limit at one moment. `kind` is `user_day`, `user_minute`, `key_day` or `key_minute`."""

    kind: str
    limit: int
    remaining: int
    reset_at: float


class Charge(NamedTuple):
    """Asks quota to count `cost` signatures."""

    charge_id: str
    caller: Caller
    cost: int
    partial: bool


class Decision(NamedTuple):
    """Quota's answer. `denied_by` is a limit's kind, "" when all was granted.

    `day` is the UTC day charged, as days since 1970-01-01. When `undecided`, nothing was charged and
    nobody can say whether it would have been: this user's counters are not there.
    """

    granted: int
    denied_by: str
    retry_after: float
    limit: Limit | None
    day: int
    undecided: bool = False


class Refund(NamedTuple):
    """Asks quota to take `units` of a charge back."""

    charge_id: str
    user_id: str
    units: int


class Wish(NamedTuple):
    """What a caller asks for one URL. "" and None leave the choice to the engine.

    `wrong` is what a face already found wrong with it: it goes on, to be accounted for.
    """

    room_url: str
    engine: str = ""
    ttl: float | None = None
    algorithm: Algorithm | None = None
    user_agent: str = ""
    platform_tokens: bool = False
    method: str = "GET"
    payload: str = ""
    wrong: SigngateError | None = None


class Part:
    """One URL of a job: what is asked, then what came of it.

    `room` is None exactly when `error` says what is wrong with the request. After the line either
    `signed` or `error` is set, unless the job's own `error` is. `url` is the canonical URL, or the
    beginning of what was given. `engine` is "" until an enabled one was chosen.
    """

    __slots__ = ("engine", "error", "request_id", "room", "signed", "url", "wish")

    def __init__(self, request_id: str, wish: Wish, room: Room | None, error: SigngateError | None) -> None:
        self.request_id = request_id
        self.wish = wish
        self.room = room
        self.error = error
        self.url = wish.room_url[:MAX_LENGTH] if room is None else room.url
        self.engine = ""
        self.signed: Signed | None = None

    def request(self, deadline: float | None) -> SignRequest:
        """What the engine is asked, for a part that is well-formed."""
        if self.room is None:
            raise ValueError("nothing to sign")
        wish = self.wish
        return SignRequest(
            self.room,
            self.request_id,
            wish.user_agent,
            wish.ttl,
            wish.algorithm,
            deadline,
            wish.platform_tokens,
            wish.method,
            wish.payload,
        )


class Job:
    """What one caller asks at once: one part, or the parts of a batch under one charge.

    `credential` is a key to validate; or None, and then `caller` is a token's, already verified, and
    `session_id` is looked up in the deny-set. `error` fails the whole job. `gone` is set by whoever
    waited and stopped waiting. `call` and `trace` are what it came with, for logs and traces.

    `arrived` is in epoch seconds; `started` and `deadline` are monotonic. `took_ms`: from there to its event.
    """

    __slots__ = (
        "arrived", "call", "caller", "charge_id", "credential", "day", "deadline", "error", "gone", "granted",
        "limit", "partial", "parts", "session_id", "started", "took_ms", "trace",
    )  # fmt: skip

    def __init__(
        self, parts: list[Part], *, arrived: float, started: float, deadline: float | None, partial: bool
    ) -> None:
        self.parts = parts
        self.arrived = arrived
        self.started = started
        self.deadline = deadline
        self.partial = partial
        self.charge_id = parts[0].request_id
        self.call: CallContext | None = None
        self.trace: Traced | None = None
        self.credential: Credential | None = None
        self.session_id = ""
        self.caller: Caller | None = None
        self.error: SigngateError | None = None
        self.limit: Limit | None = None
        self.day = 0
        self.granted = 0
        self.gone = False
        self.took_ms = 0


_DAILY: Final = frozenset({"user_day", "key_day"})


class QuotaExhausted(ResourceExhausted):
    """The day's signatures are used up."""

    reason = "QUOTA_EXHAUSTED"
    message = "The signatures of this UTC day are used up."


class RateLimited(ResourceExhausted):
    """Too many signatures in a minute."""

    reason = "RATE_LIMITED"
    message = "Too many signatures in this minute. Slow down."


def quota_error(decision: Decision, now: float) -> ResourceExhausted:
    """What a denial tells its caller: which limit, and when to come back."""
    kind = QuotaExhausted if decision.denied_by in _DAILY else RateLimited
    return kind(
        metadata={"limit": decision.denied_by},
        retry_after=decision.retry_after,
        quota=None if decision.limit is None else quota_facts(decision.limit, now),
    )


def quota_facts(limit: Limit, now: float) -> QuotaFacts:
    """A limit as the RateLimit headers tell it; `now` is in epoch seconds."""
    return QuotaFacts(
        name=limit.kind,
        limit=limit.limit,
        remaining=limit.remaining,
        reset_after=max(0.0, limit.reset_at - now),
        reset_at=limit.reset_at,
    )
