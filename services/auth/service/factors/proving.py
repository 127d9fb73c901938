"""The proof of a factor, and who may add one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import UUID

from servicekit import log
from services.auth.domain import MAX_TRIES, Json, Session, User
from services.auth.errors import (
    FactorNotFound,
    InsufficientAal,
    MfaChallengeExpired,
    MfaVerificationFailed,
    ReauthenticationNeeded,
    ValidationFailed,
)
from services.auth.second_factors import Challenge, PasskeyAnswer, SecretFactor
from services.auth.service.factors import totp, webauthn
from services.auth.service.factors.guesses import Guesses
from services.auth.service.kit import Kit

if TYPE_CHECKING:
    from services.auth.store import Unit

CREATION_AGE: Final = 3600
"""Seconds since the last proof of identity within which a passkey may be created, as for its enrolment."""
_log = log.get("factors")


class WrongAnswer(Exception):
    """A wrong answer: `why`, for the audit log, and what the caller is told."""

    def __init__(self, why: str, message: str = MfaVerificationFailed.message) -> None:
        self.why, self.message = why, message


class Proving:
    """Checks answers to challenges, and keeps what they leave: a used step, a credential, a counter."""

    def __init__(self, kit: Kit, guesses: Guesses) -> None:
        self._kit, self._guesses = kit, guesses

    def check_addition(self, user: User, factor: SecretFactor, session: Session) -> None:
        """Who may make a new factor count. Asked at its first proof too, for an enrolment may be left open:
        a TOTP's secret is then known to the session that began, but a passkey can be created by any session.

        Raises `InsufficientAal`, `ReauthenticationNeeded`.
        """
        if factor.status != "unverified":
            return
        if user.has_factor and session.aal != "aal2":
            raise InsufficientAal
        newest = max((at for _, at in session.amr), default=0)
        if factor.kind == "webauthn" and self._kit.clock.time() - newest > CREATION_AGE:
            raise ReauthenticationNeeded("Your sign-in is too old to add a passkey: sign in again.")

    async def options(self, unit: Unit, factor: SecretFactor, challenge: bytes) -> Json:
        """What the browser is asked for, as JSON."""
        kit = self._kit
        milliseconds = int(kit.rules.challenge_ttl.total_seconds() * 1000)
        if factor.passkey is not None:
            return webauthn.request(kit.rules.passkeys, factor.passkey, challenge, milliseconds)
        user = await unit.accounts.get(factor.user_id)
        known = await unit.factors.passkeys(factor.user_id)
        return webauthn.creation(
            kit.rules.passkeys, kit.rules.totp_issuer, user, challenge, milliseconds, known
        )

    async def challenged(
        self, unit: Unit, user: User, factor_id: UUID, challenge_id: UUID
    ) -> tuple[SecretFactor, Challenge]:
        """The factor and its live challenge, both locked. Raises `FactorNotFound`, `MfaChallengeExpired`."""
        factor = await unit.factors.get(factor_id, user.id)
        if factor is None:
            raise FactorNotFound
        challenge = await unit.factors.challenged(challenge_id, factor_id)
        now = self._kit.clock.now()
        over = challenge is None or challenge.expires_at <= now or challenge.verified_at is not None
        if challenge is None or over or challenge.attempts >= MAX_TRIES:
            raise MfaChallengeExpired
        return factor, challenge

    async def prove(
        self,
        unit: Unit,
        user: User,
        factor: SecretFactor,
        challenge: Challenge,
        answer: str | PasskeyAnswer,
        account: str,
    ) -> None:
        """Check a TOTP's code or a passkey's response; `account` is whose wrong answers count.

        Raises `WrongAnswer`, `ValidationFailed` for an answer of another kind, `PasskeyExists`, and
        `RequestRateLimit` for codes once the day's wrong answers are used up.
        """
        if isinstance(answer, str):
            await self._prove_code(unit, factor, answer, account)
        else:
            await self._prove_passkey(unit, user, factor, challenge, answer)

    async def _prove_code(self, unit: Unit, factor: SecretFactor, code: str, account: str) -> None:
        if factor.kind != "totp":
            raise ValidationFailed("webauthn", "give the passkey's response: this factor has no codes")
        if factor.status == "verified":
            await self._guesses.check(account)
        secret, now = self._kit.secrets.unseal(factor.id, factor.sealed), self._kit.clock.time()
        step = None if secret is None else totp.matching_step(secret, code, now, factor.last_used_step)
        if step is None:
            raise WrongAnswer("totp")
        await unit.factors.verified(factor.id, step)

    async def _prove_passkey(
        self, unit: Unit, user: User, factor: SecretFactor, challenge: Challenge, answer: PasskeyAnswer
    ) -> None:
        party = self._kit.rules.passkeys
        if factor.kind != "webauthn" or challenge.webauthn is None:
            raise ValidationFailed("code", "give the code: this factor is no passkey")
        party.check(answer.rp_id, answer.origins)
        if answer.ceremony != ceremony(factor):
            raise ValidationFailed("type", f"must be {ceremony(factor)}: see the challenge")
        try:
            if factor.passkey is None:
                await unit.factors.created(factor.id, webauthn.created(party, answer, challenge.webauthn))
            else:
                count = webauthn.signed(party, answer, challenge.webauthn, factor.passkey, user.id)
                await unit.factors.signed(factor.id, count)
        except webauthn.PasskeyCopied:
            _log.warning("a passkey's counter went back: it may be a copy", factor_id=str(factor.id))
            message = "This passkey's counter went back: it may be a copy. Remove it, and use another factor."
            raise WrongAnswer("passkey_counter", message) from None
        except webauthn.PasskeyRefused:
            raise WrongAnswer(
                "passkey", "The passkey's response is not valid. Ask for a new challenge."
            ) from None


def ceremony(factor: SecretFactor) -> webauthn.Ceremony:
    """What a passkey is asked for."""
    return "create" if factor.passkey is None else "request"
