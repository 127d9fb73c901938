"""Second factors: set up, proved, removed. What each kind is stands in `service.factors`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import pyotp

from servicekit.principal import Principal
from services.auth.domain import Client, Factor, Issued, Json, Session, User
from services.auth.errors import (
    FactorNotFound,
    MfaVerificationFailed,
    SessionExpired,
    TooManyFactors,
    UserNotFound,
    ValidationFailed,
)
from services.auth.mail.letters import Letter
from services.auth.second_factors import PasskeyAnswer
from services.auth.service.assurance import lower_sessions, require_rows
from services.auth.service.factors import totp
from services.auth.service.factors.guesses import Guesses
from services.auth.service.factors.proving import Proving, WrongAnswer, ceremony
from services.auth.service.factors.recovery import new_codes
from services.auth.service.factors.webauthn import Ceremony
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit
from services.auth.service.names import given_name
from services.auth.service.sessions import end_sessions

if TYPE_CHECKING:
    from services.auth.store import Unit

MAX_FACTORS: Final = 10


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A new factor and a TOTP's secret, which is shown here only."""

    factor: Factor
    secret: str = field(default="", repr=False)
    uri: str = field(default="", repr=False)
    qr_code: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """A challenge; for a passkey with what `navigator.credentials` takes as `publicKey`, in JSON."""

    id: UUID
    expires_at: datetime
    kind: str
    ceremony: Ceremony | None = None
    options: Json | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Proved:
    """A raised session, and recovery codes when this was the first proof of the first factor."""

    issued: Issued
    recovery_codes: tuple[str, ...] = field(default=(), repr=False)


class Mfa:
    """Second factors of the caller."""

    def __init__(self, kit: Kit) -> None:
        self._kit, self._issuing, self._guesses = kit, Issuing(kit), Guesses(kit)
        self._proving = Proving(kit, self._guesses)
        # A QR code takes a tenth of a second in the worst case: one at a time, and not in the event loop.
        self._drawing = asyncio.Semaphore(1)

    async def enroll(
        self, principal: Principal, kind: str, name: str, issuer: str, client: Client
    ) -> Enrolled:
        """Start a factor."""
        kit = self._kit
        if kind not in ("totp", "webauthn"):
            raise ValidationFailed("factor_type", "must be totp or webauthn")
        if kind == "webauthn":
            kit.rules.passkeys.check("", ())
        name, issuer = given_name("friendly_name", name), given_name("issuer", issuer)
        await kit.limits.hit("factor", client, str(principal.user_id))
        secret, factor_id = kit.secrets.totp_secret(), kit.ids.uuid7()
        async with kit.store.unit() as unit:
            user = _there(await unit.accounts.by_id(principal.user_id, lock=True))
            await require_rows(unit, principal, user)
            if len(user.factors) >= MAX_FACTORS:
                raise TooManyFactors
            sealed = kit.secrets.seal(factor_id, secret) if kind == "totp" else None
            await unit.factors.add(factor_id, user.id, name, sealed, kind)
            await unit.audit.add("factor_enrolled", user.id, client, factor_id=str(factor_id))
            user = await unit.accounts.get(user.id)
        factor = next(factor for factor in user.factors if factor.id == factor_id)
        if kind != "totp":
            return Enrolled(factor)
        uri = pyotp.TOTP(secret).provisioning_uri(
            name=user.email, issuer_name=issuer or kit.rules.totp_issuer
        )
        async with self._drawing:
            drawn = await asyncio.to_thread(totp.svg, uri)
        return Enrolled(factor, secret, uri, drawn)

    async def challenge(
        self,
        principal: Principal,
        factor_id: UUID,
        client: Client,
        *,
        rp_id: str = "",
        origins: Sequence[str] = (),
    ) -> Asked:
        """Ask to prove a factor. `rp_id` and `origins`: where a client says that it uses a passkey."""
        kit = self._kit
        await self._guesses.hit(principal, client)
        challenge_id, ends = kit.ids.uuid7(), kit.clock.now() + kit.rules.challenge_ttl
        async with kit.store.unit() as unit:
            factor = await unit.factors.get(factor_id, principal.user_id)
            if factor is None:
                raise FactorNotFound
            if factor.kind != "webauthn":
                await unit.factors.challenge(challenge_id, factor_id, ends, client.ip)
                return Asked(challenge_id, ends, factor.kind)
            kit.rules.passkeys.check(rp_id, origins)
            if factor.passkey is None:
                user = _there(await unit.accounts.by_id(principal.user_id))
                self._proving.check_addition(user, factor, await self._session(unit, principal))
            random = kit.secrets.challenge()
            await unit.factors.challenge(challenge_id, factor_id, ends, client.ip, random)
            options = await self._proving.options(unit, factor, random)
        return Asked(challenge_id, ends, factor.kind, ceremony(factor), options)

    async def verify(
        self,
        principal: Principal,
        factor_id: UUID,
        challenge_id: UUID,
        answer: str | PasskeyAnswer,
        client: Client,
    ) -> Proved:
        """Answer a challenge, with a TOTP code or a passkey's response: this session becomes aal2.

        A time step counts once, five wrong codes end the challenge, a passkey's challenge takes one answer.
        The first proof of a factor ends the user's other sessions, which did not have to show it.
        """
        kit = self._kit
        account = await self._guesses.hit(principal, client)
        done: Proved | None = None
        refused = MfaVerificationFailed()
        letters: list[Letter] = []
        async with kit.store.unit() as unit:
            # The account's lock first: two factors proved at once would both think themselves the first.
            user = _there(await unit.accounts.by_id(principal.user_id, lock=True))
            factor, challenge = await self._proving.challenged(unit, user, factor_id, challenge_id)
            session = await self._session(unit, principal)
            self._proving.check_addition(user, factor, session)
            try:
                await self._proving.prove(unit, user, factor, challenge, answer, account)
            except WrongAnswer as wrong:
                # This unit is committed: a wrong answer stays counted.
                refused = MfaVerificationFailed(wrong.message)
                await unit.factors.missed(challenge.id, over=not isinstance(answer, str))
                if factor.status == "verified":
                    letters = await self._guesses.wrong(
                        unit, user, account, client, wrong.why, str(factor.id)
                    )
            else:
                await unit.factors.met(challenge.id, kit.clock.now())
                codes: tuple[str, ...] = ()
                if factor.status == "unverified":
                    await unit.factors.drop_unverified(user.id, factor.id)
                    # Before the commit: their tokens say that the account has no factor.
                    await kit.deny(await end_sessions(kit, unit, user.id, but=principal.session_id))
                    letters = [Letter("factor_changed", user.email)]
                    if not user.has_factor:
                        codes = await new_codes(kit, unit, user.id)
                user = await unit.accounts.get(user.id)
                issued = await self._issuing.raised(unit, user, session, factor.kind, factor.id)
                await unit.audit.add("factor_proved", user.id, client, factor_id=str(factor.id))
                done = Proved(issued, codes)
        kit.post(letters)
        if done is None:
            raise refused
        return done

    async def recover(self, principal: Principal, code: str, client: Client) -> tuple[Issued, int]:
        """Raise this session by a recovery code; also returns how many are left. The owner gets a mail."""
        kit, now = self._kit, self._kit.clock.now()
        account = await self._guesses.hit(principal, client)
        letters: list[Letter] = []
        recovered: tuple[Issued, int] | None = None
        async with kit.store.unit() as unit:
            user = _there(await unit.accounts.by_id(principal.user_id, lock=True))
            hashed = kit.secrets.recovery_hash(user.id, code)
            left = await unit.factors.use_recovery_code(user.id, hashed, now) if user.has_factor else None
            if left is not None:
                session = await self._session(unit, principal)
                issued = await self._issuing.raised(unit, user, session, "recovery_code", None)
                await unit.audit.add("recovery_code_used", user.id, client, left=left)
                letters.append(Letter("recovery_code_used", user.email, left=left))
                recovered = issued, left
            elif user.has_factor:
                letters += await self._guesses.wrong(unit, user, account, client, "recovery_code")
        kit.post(letters)
        if recovered is None:
            raise MfaVerificationFailed
        return recovered

    async def unenroll(self, principal: Principal, factor_id: UUID, client: Client) -> None:
        """Remove a factor. Sessions that it raised fall back to aal1 at once, this one too."""
        kit = self._kit
        letters: list[Letter] = []
        async with kit.store.unit() as unit:
            user = _there(await unit.accounts.by_id(principal.user_id, lock=True))
            factor = await unit.factors.get(factor_id, user.id)
            if factor is None:
                raise FactorNotFound
            await require_rows(unit, principal, user)
            if factor.status == "verified":
                letters.append(Letter("factor_changed", user.email))
            await unit.factors.remove(factor_id, user.id)
            await lower_sessions(kit, unit, factor)
            if not (await unit.accounts.get(user.id)).has_factor:
                await unit.factors.drop_recovery_codes(user.id)
            await unit.audit.add("factor_removed", user.id, client, factor_id=str(factor_id))
        kit.post(letters)

    async def _session(self, unit: Unit, principal: Principal) -> Session:
        """The caller's session, locked, if it may still be given tokens. Raises `SessionExpired`."""
        kit, session_id = self._kit, principal.session_id
        found = await unit.sessions.get(session_id, lock=True) if session_id else None
        if found is None or found.ended(kit.clock.now(), kit.rules.session_inactivity):
            raise SessionExpired
        return found


def _there(user: User | None) -> User:
    if user is None:
        raise UserNotFound
    return user
