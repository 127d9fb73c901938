"""Second factors: TOTP (RFC 6238), and recovery codes for the day the phone is lost."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

import pyotp

from servicekit.principal import Principal
from services.auth.domain import MAX_TRIES, Client, Factor, Issued, SecretFactor, Session, User
from services.auth.errors import (
    FactorNotFound,
    MfaChallengeExpired,
    MfaVerificationFailed,
    SessionExpired,
    TooManyFactors,
    UserNotFound,
    ValidationFailed,
)
from services.auth.mail.letters import Letter
from services.auth.secrets import same
from services.auth.service.assurance import lower_sessions, require_rows
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit
from services.auth.service.names import given_name
from services.auth.service.sessions import end_sessions

RECOVERY_CODES: Final = 10
MAX_FACTORS: Final = 10
STEP: Final = 30


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A new factor and its secret, which is shown here only."""

    factor: Factor
    secret: str = field(repr=False)
    uri: str = field(repr=False)
    qr_code: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proved:
    """A raised session, and recovery codes when this was the first proof of the first factor."""

    issued: Issued
    recovery_codes: tuple[str, ...] = field(default=(), repr=False)


class Mfa:
    """Second factors of the caller."""

    def __init__(self, kit: Kit) -> None:
        self._kit, self._issuing = kit, Issuing(kit)
        # A QR code takes a tenth of a second in the worst case: one at a time, and not in the event loop.
        self._drawing = asyncio.Semaphore(1)

    async def enroll(
        self, principal: Principal, kind: str, name: str, issuer: str, client: Client
    ) -> Enrolled:
        """Start a factor."""
        kit = self._kit
        if kind != "totp":
            raise ValidationFailed("factor_type", "only totp is offered")
        name, issuer = given_name("friendly_name", name), given_name("issuer", issuer)
        await kit.limits.hit("factor", client, str(principal.user_id))
        secret, factor_id = kit.secrets.totp_secret(), kit.ids.uuid7()
        async with kit.store.unit() as unit:
            user = _there(await unit.accounts.by_id(principal.user_id, lock=True))
            await require_rows(unit, principal, user)
            if len(user.factors) >= MAX_FACTORS:
                raise TooManyFactors
            await unit.factors.add(factor_id, user.id, name, kit.secrets.seal(factor_id, secret))
            await unit.audit.add("factor_enrolled", user.id, client, factor_id=str(factor_id))
            user = await unit.accounts.get(user.id)
        factor = next(factor for factor in user.factors if factor.id == factor_id)
        uri = pyotp.TOTP(secret).provisioning_uri(
            name=user.email, issuer_name=issuer or kit.rules.totp_issuer
        )
        async with self._drawing:
            drawn = await asyncio.to_thread(svg, uri)
        return Enrolled(factor, secret, uri, drawn)

    async def challenge(self, principal: Principal, factor_id: UUID, client: Client) -> tuple[UUID, datetime]:
        """Ask to prove a factor: the challenge's id and when it ends."""
        kit = self._kit
        await kit.limits.hit("factor", client, str(principal.user_id))
        challenge_id, ends = kit.ids.uuid7(), kit.clock.now() + kit.rules.challenge_ttl
        async with kit.store.unit() as unit:
            if await unit.factors.get(factor_id, principal.user_id) is None:
                raise FactorNotFound
            await unit.factors.challenge(challenge_id, factor_id, ends, client.ip)
        return challenge_id, ends

    async def verify(
        self, principal: Principal, factor_id: UUID, challenge_id: UUID, code: str, client: Client
    ) -> Proved:
        """Answer a challenge: this session becomes aal2.

        A time step counts once, five wrong codes end the challenge, and the first proof of a factor
        ends the user's other sessions, which did not have to show it.
        """
        kit, now = self._kit, self._kit.clock.now()
        await kit.limits.hit("factor", client, str(principal.user_id))
        proved = None
        letters: list[Letter] = []
        ended: list[UUID] = []
        async with kit.store.unit() as unit:
            # The account's lock first: two factors proved at once would both think themselves the first.
            user = _there(await unit.accounts.by_id(principal.user_id, lock=True))
            factor = await unit.factors.get(factor_id, principal.user_id)
            if factor is None:
                raise FactorNotFound
            challenge = await unit.factors.challenged(challenge_id, factor_id)
            over = challenge is None or challenge.expires_at <= now or challenge.verified_at is not None
            if challenge is None or over or challenge.attempts >= MAX_TRIES:
                raise MfaChallengeExpired
            step = self._step(factor, code)
            if step is None:
                await unit.factors.missed(challenge.id)
            else:
                await unit.factors.verified(factor.id, step)
                await unit.factors.met(challenge.id, now)
                codes: tuple[str, ...] = ()
                if factor.status == "unverified":
                    await unit.factors.drop_unverified(user.id, factor.id)
                    ended = await end_sessions(kit, unit, user.id, but=principal.session_id)
                    letters.append(Letter("factor_changed", user.email))
                    if not user.has_factor:
                        codes = tuple(kit.secrets.recovery_code() for _ in range(RECOVERY_CODES))
                        hashes = [kit.secrets.recovery_hash(user.id, text) for text in codes]
                        await unit.factors.set_recovery_codes(
                            user.id, [kit.ids.uuid7() for _ in codes], hashes
                        )
                session = _alive(
                    await unit.sessions.get(principal.session_id, lock=True) if principal.session_id else None
                )
                user = await unit.accounts.get(user.id)
                issued = await self._issuing.raised(unit, user, session, "totp", factor.id)
                await unit.audit.add("factor_proved", user.id, client, factor_id=str(factor.id))
                proved = Proved(issued, codes)
        if proved is None:
            raise MfaVerificationFailed
        await kit.deny(ended)
        kit.post(letters)
        return proved

    async def recover(self, principal: Principal, code: str, client: Client) -> tuple[Issued, int]:
        """Raise this session by a recovery code; also returns how many are left."""
        kit, now = self._kit, self._kit.clock.now()
        await kit.limits.hit("factor", client, str(principal.user_id))
        async with kit.store.unit() as unit:
            user = _there(await unit.accounts.by_id(principal.user_id, lock=True))
            hashed = kit.secrets.recovery_hash(user.id, code)
            left = await unit.factors.use_recovery_code(user.id, hashed, now) if user.has_factor else None
            if left is None:
                raise MfaVerificationFailed
            session = _alive(
                await unit.sessions.get(principal.session_id, lock=True) if principal.session_id else None
            )
            issued = await self._issuing.raised(unit, user, session, "recovery_code", None)
            await unit.audit.add("recovery_code_used", user.id, client, left=left)
        return issued, left

    async def unenroll(self, principal: Principal, factor_id: UUID, client: Client) -> None:
        """Remove a factor. Sessions that it raised fall back to aal1 at once, this one too."""
        kit = self._kit
        letters: list[Letter] = []
        async with kit.store.unit() as unit:
            user = _there(await unit.accounts.by_id(principal.user_id, lock=True))
            factor = await unit.factors.get(factor_id, user.id)
            if factor is None:
                raise FactorNotFound
            if factor.status == "verified":
                await require_rows(unit, principal, user)
                letters.append(Letter("factor_changed", user.email))
            await unit.factors.remove(factor_id, user.id)
            await lower_sessions(kit, unit, user.id, factor_id)
            if not (await unit.accounts.get(user.id)).has_factor:
                await unit.factors.drop_recovery_codes(user.id)
            await unit.audit.add("factor_removed", user.id, client, factor_id=str(factor_id))
        kit.post(letters)

    def _step(self, factor: SecretFactor, code: str) -> int | None:
        """The time step whose code it is, one either way allowed; `None` for a wrong or a used one."""
        secret = self._kit.secrets.unseal(factor.id, factor.sealed)
        if secret is None:
            return None
        totp, now = pyotp.TOTP(secret), int(self._kit.clock.time()) // STEP
        typed = "".join(code.split())
        for step in (now - 1, now, now + 1):
            unused = factor.last_used_step is None or step > factor.last_used_step
            if unused and same(totp.generate_otp(step), typed):
                return step
        return None


def _there(user: User | None) -> User:
    if user is None:
        raise UserNotFound
    return user


def _alive(session: Session | None) -> Session:
    if session is None or session.revoked_at is not None:
        raise SessionExpired
    return session


def svg(uri: str) -> str:
    """The address as a QR code. Any mask can be read; trying all eight takes most of the time."""
    import segno  # noqa: PLC0415  # half a megabyte that only an enrolment needs

    out = io.BytesIO()
    segno.make(uri, error="m", mask=3).save(out, kind="svg", scale=4, xmldecl=False)
    return out.getvalue().decode()
