"""Does a credential hold? The hot path: a list in, a list out, no wait per member.

A credential is judged in the order: shape and checksum (no I/O), record, keyed hash in constant
time, revoked, expired, owner active, network. Ids stand in a refusal only once the secret has been
proven, so nobody can write refusals into another's usage by knowing a key's id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hmac import compare_digest
from typing import Final
from uuid import UUID

from servicekit import log
from servicekit.apikey import TOKEN_PREFIX, KeyMalformed, id_text
from servicekit.clock import Clock
from services.keys.accounts import inactive
from services.keys.derived import DerivedTokens, Token
from services.keys.domain import (
    MALFORMED,
    TOKEN_EXPIRED,
    UNAVAILABLE,
    UNKNOWN,
    Record,
    Refused,
    Validated,
)
from services.keys.errors import KeysUnavailable
from services.keys.metrics import VALIDATED
from services.keys.networks import admits
from services.keys.peppers import Peppers
from services.keys.records import Records

Presented = tuple[str, str]
"""A secret, and the caller's address as the edge saw it ("" when unknown)."""
Answer = Validated | Refused

_log = log.get("validation")
_derived_size: Final = 20_000
_outcomes: Final = {
    name: VALIDATED.labels(name)
    for name in (
        "OK", "KEY_MALFORMED", "KEY_UNKNOWN", "KEY_REVOKED", "KEY_EXPIRED", "KEY_NETWORK",
        "USER_INACTIVE", "KEYS_UNAVAILABLE",
    )
}  # fmt: skip


class Validator:
    """Judges credentials by records. `outdated` is told each key whose hash is under an old pepper."""

    def __init__(
        self,
        records: Records,
        peppers: Peppers,
        tokens: DerivedTokens,
        clock: Clock,
        outdated: Callable[[UUID, str, bytes], None] | None = None,
    ) -> None:
        self._records = records
        self._peppers = peppers
        self._tokens = tokens
        self._clock = clock
        self._outdated = outdated
        self._derived: dict[Token, tuple[Validated, Validated]] = {}

    async def validate(self, credentials: Sequence[Presented]) -> list[Answer]:
        """An answer for each credential, in order.

        Raises `KeysUnavailable` when PostgreSQL can't be read and not one member could be looked
        up; otherwise such members are refused with KEYS_UNAVAILABLE and the others answered.
        """
        named: dict[str, str | Token | None] = {}
        for secret, _ in credentials:
            if secret not in named:
                named[secret] = self._name(secret)
        keys = {name if isinstance(name, str) else name.key for name in named.values() if name is not None}
        now = self._clock.monotonic()
        if stale := self._records.stale(keys, now):
            await self._records.refresh(stale)
            now = self._clock.monotonic()
        wall = self._clock.time()
        judged: dict[Presented, Answer] = {}
        for credential in credentials:
            if credential not in judged:
                judged[credential] = self._judge(credential, named[credential[0]], now, wall)
        _count(judged.values())
        if judged and all(answer is UNAVAILABLE for answer in judged.values()):
            raise KeysUnavailable(retry_after=1.0)
        return [judged[credential] for credential in credentials]

    def _name(self, secret: str) -> str | Token | None:
        """Which key it says it is; for a token, all that it says. `None`: not a credential."""
        try:
            if secret.startswith(TOKEN_PREFIX):
                return self._tokens.verify(secret)
            return id_text(secret)
        except KeyMalformed:
            return None

    def _judge(self, credential: Presented, named: str | Token | None, now: float, wall: float) -> Answer:
        if named is None:
            return MALFORMED
        secret, client_ip = credential
        token, key = (None, named) if isinstance(named, str) else (named, named.key)
        entry = self._records.get(key, now)
        if entry is None:
            return UNAVAILABLE
        record, answer = entry.record, entry.answer
        if record is None or answer is None:
            return UNKNOWN
        if token is None:
            digest = self._peppers.under(record.pepper_version)
            if digest is None:
                _log.error("a pepper is missing", version=record.pepper_version)
                return UNAVAILABLE
            if not compare_digest(digest(secret.encode()), record.digest):
                return UNKNOWN
            if record.pepper_version != self._peppers.current and self._outdated is not None:
                self._outdated(record.key_id, secret, record.digest)
        elif token.expires_at <= wall:
            return TOKEN_EXPIRED
        if refused := why_not(record, client_ip, wall):
            return refused
        return answer if token is None else self._derive(answer, token)

    def _derive(self, answer: Validated, token: Token) -> Validated:
        """As `derived`; the same object for a token until its key's record changes."""
        kept = self._derived.get(token)
        if kept is not None and kept[0] is answer:
            return kept[1]
        if len(self._derived) >= _derived_size:
            self._derived.clear()
        made = derived(answer, token)
        self._derived[token] = (answer, made)
        return made


def why_not(record: Record, client_ip: str, wall: float) -> Refused | None:
    """Why a key whose secret is proven does not hold, `None` when it does."""
    if record.revoked:
        reason, message = "KEY_REVOKED", "This API key has been revoked."
    elif record.expires_at is not None and record.expires_at <= wall:
        reason, message = "KEY_EXPIRED", "This API key has expired."
    elif not record.user_active:
        reason, message = "USER_INACTIVE", inactive(record)
    elif record.networks and not admits(record.networks, client_ip):
        reason, message = "KEY_NETWORK", "This API key may not be used from this address."
    else:
        return None
    return Refused(reason, message, str(record.user_id), str(record.key_id))


def derived(answer: Validated, token: Token) -> Validated:
    """The answer for a token of a key that holds: what both may do, until the earlier end."""
    end = token.expires_at if answer.expires_at is None else min(token.expires_at, answer.expires_at)
    return Validated(
        key_id=answer.key_id,
        user_id=answer.user_id,
        tier=answer.tier,
        scopes=tuple(scope for scope in answer.scopes if scope in token.scopes),
        daily_limit=answer.daily_limit,
        per_minute=answer.per_minute,
        engine=answer.engine,
        expires_at=end,
        derived=True,
    )


def _count(answers: Iterable[Answer]) -> None:
    good = 0
    for answer in answers:
        if isinstance(answer, Validated):
            good += 1
        else:
            _outcomes[answer.reason].inc()
    if good:
        _outcomes["OK"].inc(good)
