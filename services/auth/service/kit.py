"""What every use case is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol
from uuid import UUID

from servicekit.clock import Clock, Ids
from services.auth.domain import METADATA_LIMIT, Json
from services.auth.errors import ValidationFailed
from services.auth.hash_formats import ImportLimits
from services.auth.limits import RateLimits
from services.auth.mail.letters import Letter
from services.auth.party import RelyingParty
from services.auth.passwords import Passwords, check_new_password, context_words
from services.auth.redirects import Redirects
from services.auth.secrets import Secrets
from services.auth.tokens import AccessTokens

if TYPE_CHECKING:
    from services.auth.store import Store


_deepest: Final = 32
_largest: Final = 1.7e308


class Postman(Protocol):
    """Where letters are handed in; see `services.auth.mail.outbox`."""

    def post(self, letter: Letter) -> None:
        """Take a letter, to be sent soon. Raises `EmailRateLimit` when too many wait."""
        ...


class Background(Protocol):
    """Where work is handed in that an answer must not wait for; see `services.auth.later`."""

    def do(self, work: Callable[[], Coroutine[Any, Any, None]], after: float) -> None:
        """Begin after so many seconds. Raises `Overloaded`."""
        ...


class Denials(Protocol):
    """The deny-set of sessions; see `servicekit.redis.DeniedSessions`."""

    async def deny(self, session_id: str, ttl: int) -> None:
        """Refuse the session's access tokens for `ttl` seconds. Raises `Unavailable`."""
        ...

    async def lower(
        self, session_id: str, version: int, ttl: int, *, has_factor: bool, proved_at: int
    ) -> None:
        """Have tokens of older assurance versions count as `aal1`, and as no fresher than `proved_at`, for
        `ttl` seconds. Raises `Unavailable`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """The deployment's choices; `services.auth.config` tells what each means. `names`: the service's own."""

    site_url: str
    link_base: str
    redirects: Redirects
    signup_enabled: bool
    signup_tells_existing: bool
    auto_confirm: bool
    secure_email_change: bool
    password_min_length: int
    names: tuple[str, ...]
    reuse_window: timedelta
    session_inactivity: timedelta
    session_timebox: timedelta | None
    code_ttl: timedelta
    invite_ttl: timedelta
    flow_ttl: timedelta
    challenge_ttl: timedelta
    totp_issuer: str
    even_answer: float
    passkeys: RelyingParty = field(default_factory=RelyingParty)
    imported_hashes: ImportLimits = field(default_factory=ImportLimits)

    def check_password(self, password: str, *emails: str) -> None:
        """Raise `WeakPassword` for a new password that an account of these addresses must not have."""
        words = [word for email in emails for word in context_words(email, *self.names)]
        check_new_password(password, self.password_min_length, words)

    def redirect(self, wanted: str) -> str:
        """Where a link leads: see `services.auth.redirects`."""
        return self.redirects.choose(wanted)


@dataclass(frozen=True, slots=True)
class Kit:
    """The parts that use cases are made of."""

    store: Store
    passwords: Passwords
    secrets: Secrets
    tokens: AccessTokens
    postman: Postman
    background: Background
    limits: RateLimits
    denials: Denials
    clock: Clock
    ids: Ids
    rules: Rules

    def post(self, letters: Iterable[Letter]) -> None:
        """Hand letters in. Called once the transaction that they tell of is committed."""
        for letter in letters:
            self.postman.post(letter)

    async def deny(self, sessions: Iterable[UUID]) -> None:
        """Have every service refuse these sessions' access tokens for as long as those could live."""
        for session_id in sessions:
            # A minute more: verifiers grant clocks some leeway.
            await self.denials.deny(str(session_id), self.tokens.ttl + 60)


def metadata(given: Mapping[str, Any] | None, name: str = "data") -> Json:
    """Metadata as it may be kept: JSON that PostgreSQL and protobuf can both hold.

    Raises `ValidationFailed` when it is too long, too deep, or has a number or character they can't.
    """
    found = dict(given or {})
    if not _plain(found, _deepest):
        raise ValidationFailed(name, "must be JSON of finite numbers, without U+0000, at most 32 levels deep")
    if len(json.dumps(found, ensure_ascii=False).encode()) > METADATA_LIMIT:
        raise ValidationFailed(name, "must have at most 16 KiB as JSON")
    return found


def _plain(value: object, depth: int) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, (int, float)):
        return -_largest <= value <= _largest  # NaN compares false
    if depth == 0:
        return False
    if isinstance(value, dict):
        return all(storable(str(key)) and _plain(each, depth - 1) for key, each in value.items())
    return isinstance(value, (list, tuple)) and all(_plain(each, depth - 1) for each in value)


def storable(text: str) -> bool:
    """False for what PostgreSQL's text can't hold: U+0000, and halves of surrogate pairs."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
