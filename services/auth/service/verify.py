"""Codes and links redeemed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from services.auth.addresses import normal_email
from services.auth.domain import PURPOSES, Client, Issued, OneTimeToken, OtpType, Purpose
from services.auth.errors import BadCodeVerifier, FlowStateExpired, FlowStateNotFound, OtpExpired
from services.auth.secrets import s256, same
from services.auth.service.even import EvenAnswers
from services.auth.service.kit import Kit
from services.auth.service.redeeming import Redeemed, Redeeming, Spent

if TYPE_CHECKING:
    from services.auth.store import Unit


@dataclass(frozen=True, slots=True)
class Followed:
    """What a mailed link's button gave: a session, a PKCE code for the client, or (an e-mail change
    that waits for the other address) neither. `redirect_to` is where it leads.
    """

    redirect_to: str
    issued: Issued | None = None
    auth_code: str = field(default="", repr=False)


class Verify:
    """Redeems what was mailed: once, in time, and digits within five tries."""

    def __init__(self, kit: Kit) -> None:
        self._kit, self._redeeming = kit, Redeeming(kit)
        self._even = EvenAnswers(kit.clock, kit.rules.even_answer)

    async def by_code(self, kind: OtpType, email: str, code: str, client: Client) -> Redeemed:
        """Redeem the digits that a mail showed.

        Raises `OtpExpired`. A wrong try counts against every live code that it could have meant, but not
        against its link: five strangers' guesses must not void a token of 256 bits.
        """
        address, typed = normal_email(email), "".join(code.split())[:64]
        await self._kit.limits.hit_address("verify", client)
        spent: Spent | None = None
        issued: Issued | None = None
        async with self._even.on_failure():
            known = bool(await self._kit.limits.hit_account("verify", client, address))
            async with self._kit.store.unit() as unit:
                found = await self._typed(unit, address, PURPOSES[kind], typed, known=known)
                if found is not None:
                    spent = await self._redeeming.spend(unit, found, client)
                    issued = await self._redeeming.session(unit, spent, client)
            if spent is None:
                raise OtpExpired
        self._kit.post(spent.letters)
        return Redeemed(spent.user, issued)

    async def by_link(self, kind: OtpType, token: str, client: Client) -> Redeemed:
        """As `by_code`, by the token of the mailed link."""
        await self._kit.limits.hit("verify", client)
        async with self._kit.store.unit() as unit:
            spent = await self._redeeming.spend(unit, await self._of_link(unit, kind, token), client)
            done = Redeemed(spent.user, await self._redeeming.session(unit, spent, client))
        self._kit.post(spent.letters)
        return done

    async def follow(self, kind: OtpType, token: str, client: Client) -> Followed:
        """As `by_link`, for the page behind the link: in a PKCE flow it gives a code, and no session,
        for the page's address bar is no place for one. Half an e-mail change gives neither.
        """
        kit, now = self._kit, self._kit.clock.now()
        await kit.limits.hit("verify", client)
        async with kit.store.unit() as unit:
            found = await self._of_link(unit, kind, token)
            in_flow = found.flow_state_id is not None
            spent = await self._redeeming.spend(unit, found, client, for_flow=in_flow)
            if found.flow_state_id is None or spent.half:
                issued = await self._redeeming.session(unit, spent, client)
                followed = Followed(found.redirect_to, issued)
            else:
                code = kit.secrets.token()
                await unit.flows.followed(
                    found.flow_state_id, kit.secrets.flow_hash(code), now, now + kit.rules.flow_ttl
                )
                followed = Followed(found.redirect_to, auth_code=code)
        kit.post(spent.letters)
        return followed

    async def exchange(self, auth_code: str, verifier: str, client: Client) -> Redeemed:
        """End a PKCE flow. Raises `FlowStateNotFound`, `FlowStateExpired`, `BadCodeVerifier`."""
        kit, now = self._kit, self._kit.clock.now()
        await kit.limits.hit("verify", client)
        hashed = kit.secrets.flow_hash(auth_code)
        async with kit.store.unit() as unit:
            owner = await unit.flows.owner(hashed)
            await unit.accounts.lock([owner] if owner else [])
            flow = await unit.flows.by_code(hashed)
            if flow is None or flow.used_at is not None:
                raise FlowStateNotFound
            if flow.expires_at <= now:
                raise FlowStateExpired
            proof = s256(verifier) if flow.pkce.method == "s256" else verifier
            if not same(proof, flow.pkce.challenge):
                raise BadCodeVerifier
            await unit.flows.use(flow.id, now)
            return await self._redeeming.exchange(unit, flow, client)

    async def nonce(self, user_id: UUID, nonce: str) -> bool:
        """Whether it is the user's re-authentication nonce; a right one is spent, a wrong one counts."""
        async with self._kit.store.unit() as unit:
            user = await unit.accounts.by_id(user_id, lock=True)
            kept = await unit.codes.of_user(user_id, "reauthentication")
            # One that went to an address that is no longer the user's proves nothing.
            mine = [kept] if user and kept and kept.email == user.email else []
            found = await self._right(unit, mine, "".join(nonce.split())[:64])
            if found is not None:
                await unit.codes.use(found.id, self._kit.clock.now())
        return found is not None

    async def _typed(
        self, unit: Unit, address: str, purposes: Sequence[Purpose], typed: str, *, known: bool
    ) -> OneTimeToken | None:
        """As `_right`, among the codes that went to an address; their accounts are locked first."""
        owners = await unit.codes.owners(address, purposes)
        await unit.accounts.lock(owners)
        sent = await unit.codes.sent_to(address, purposes, owners)
        return await self._right(unit, sent, typed, known=known)

    async def _right(
        self, unit: Unit, codes: Sequence[OneTimeToken], typed: str, *, known: bool = False
    ) -> OneTimeToken | None:
        """The live code that was typed; when none was, a try is counted and is to be committed.

        `known`: by a client that the account knows.
        """
        live = [code for code in codes if code.takes_digits(self._kit.clock.now(), known=known)]
        right = [
            code
            for code in live
            if same(code.code_hash, self._kit.secrets.code_hash(code.user_id, code.purpose, typed))
        ]
        if right:
            return right[0]
        await unit.codes.missed([code.id for code in live], known=known)
        return None

    async def _of_link(self, unit: Unit, kind: OtpType, token: str) -> OneTimeToken:
        hashed = self._kit.secrets.link_hash(token)
        owner = await unit.codes.owner_of_link(hashed)
        await unit.accounts.lock([owner] if owner else [])
        found = await unit.codes.by_link(hashed)
        if found is None or found.purpose not in PURPOSES[kind] or not found.live(self._kit.clock.now()):
            raise OtpExpired
        return found
