"""Sign-in with a password."""

from __future__ import annotations

from services.auth.addresses import normal_email
from services.auth.domain import Client, Issued, User
from services.auth.errors import InvalidCredentials
from services.auth.service.even import EvenAnswers
from services.auth.service.issuing import Issuing
from services.auth.service.kit import Kit


class SignIn:
    """Sign-in by address and password. Whether an address is known shows neither in answer nor time."""

    def __init__(self, kit: Kit) -> None:
        self._kit, self._issuing = kit, Issuing(kit)
        self._even = EvenAnswers(kit.clock, kit.rules.even_answer)

    async def sign_in(self, email: str, password: str, client: Client) -> Issued:
        """A session of aal1, the login recorded; an outdated hash of the password is renewed."""
        kit = self._kit
        address = normal_email(email)
        await kit.limits.hit_address("sign_in", client)
        async with self._even.on_failure():
            known = await kit.limits.hit_account("sign_in", client, address)
            user, outdated = await self._prove(address, password, client)
        stored = user.password_hash or ""
        fresh = await kit.passwords.hash(password, client.ip) if outdated else None
        async with kit.store.unit() as unit:
            now = await unit.accounts.by_id(user.id, lock=True)
            if now is None or now.password_hash != stored:
                raise InvalidCredentials  # changed while we were hashing
            if fresh is not None:
                await unit.accounts.change(user.id, password_hash=fresh)
            issued = await self._issuing.open(unit, now, "password", client)
        await kit.limits.forgive(client, address, known)
        return issued

    async def _prove(self, address: str, password: str, client: Client) -> tuple[User, bool]:
        """The account, and whether the hash of its password is to be renewed."""
        kit = self._kit
        async with kit.store.unit() as unit:
            user = await unit.accounts.by_email(address)
            claim = await unit.codes.claim(address)  # that of a sign-up whose address is not proved yet
        if user and user.confirmed:
            stored = user.password_hash
        else:
            # Where sign-ups tell nothing, one's own must not tell by its password that it was taken.
            stored = claim if kit.rules.signup_tells_existing else None
        verdict = await kit.passwords.verify(stored, password, client.ip)
        if user is None or not verdict.right:
            # Written for unknown addresses as well: both ways do the same work.
            async with kit.store.unit() as unit:
                await unit.audit.add("sign_in_failed", user.id if user else None, client, actor="anonymous")
            raise InvalidCredentials
        user.require_active(kit.clock.now())  # only who knows the password gets to know why
        return user, verdict.outdated
