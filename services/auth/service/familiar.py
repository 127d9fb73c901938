"""Which callers an account knows: its own devices and addresses (docs/adr/0018).

Anyone can try passwords and codes for an address. What the account was signed in from before is counted apart
from strangers, so these can't use up its owner's tries. It proves nothing else: a known caller needs the
password as any other.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from servicekit.addresses import bucket
from servicekit.clock import Clock
from services.auth.domain import REMEMBERED_DAYS, Client, User
from services.auth.programs import program
from services.auth.secrets import Secrets

if TYPE_CHECKING:
    from services.auth.store import Store, Unit
    from services.auth.store.clients import Mark


class Familiar:
    """Looks up and remembers. `Client`s without an address or a device's proof are strangers."""

    def __init__(self, store: Store, secrets: Secrets, clock: Clock) -> None:
        self._store, self._secrets, self._clock = store, secrets, clock

    async def known(self, client: Client, account: str) -> str:
        """The device (its proof's hash) or the address by which the account knows the client, or "".

        `account` is an address or an id. Does the same work for one that does not exist.
        """
        device, address = self._device(client), self._address(client)
        async with self._store.unit() as unit:
            found = await unit.clients.known(_id(account), [mark for mark in (device, address) if mark])
        if device is not None and device in found:
            return device[1]
        return bucket(client.ip) if address in found else ""

    async def is_new(self, unit: Unit, user: User, client: Client) -> bool:
        """Whether an account that was signed in to before is now signed in to from elsewhere: from an address
        or with a program that it does not know, and not from a device that proves itself.

        `user` is the account as it was before this sign-in.
        """
        device, address, used = self._device(client), self._address(client), self._program(client)
        marks = [mark for mark in (address, used) if mark]
        found = await unit.clients.known(user.id, [*marks, *([device] if device else [])])
        if user.last_login is None or device in found or set(marks) <= found:
            return False
        # Where nothing is known there is nothing to compare with, unless it was all forgotten.
        forgotten = user.last_login < self._clock.now() - timedelta(days=REMEMBERED_DAYS)
        return forgotten or await unit.clients.any_of(user.id)

    async def remember(self, unit: Unit, user: User, client: Client, *, proved: bool) -> None:
        """Know this client from now on. `proved`: by the second factor too, without which an account that has
        one learns no client: otherwise it would learn that of a thief of its password.
        """
        if user.has_factor and not proved:
            return
        # In one order, in which sign-ins at the same time wait for each other.
        marks = [self._address(client), await self._kept(unit, user, client), self._program(client)]
        found = [mark for mark in marks if mark]
        lately = await unit.clients.known(user.id, found, days=1)
        for mark in found:
            if mark not in lately:  # a row is written once a day, however often it is seen
                await unit.clients.seen(user.id, mark, self._clock.now())

    async def forget_others(self, unit: Unit, user: User, client: Client) -> None:
        """Know this client alone, as far as it was known."""
        marks = (self._address(client), self._device(client), self._program(client))
        await unit.clients.forget(user.id, but=[mark for mark in marks if mark])

    def _address(self, client: Client) -> Mark | None:
        where = bucket(client.ip)
        return ("address", self._secrets.known_hash("address", where)) if where else None

    def _program(self, client: Client) -> Mark | None:
        if not client.user_agent:
            return None
        return "program", self._secrets.known_hash("program", program(client.user_agent))

    def _device(self, client: Client) -> Mark | None:
        if client.device is None or not client.device.shown:
            return None
        return "device", self._secrets.known_hash("device", client.device.shown)

    async def _kept(self, unit: Unit, user: User, client: Client) -> Mark | None:
        """The proof that the device keeps: the one that it showed, if this account knows it, or a new one.

        A proof from elsewhere is not taken on: who planted it would be known too.
        """
        if client.device is None:
            return None
        shown = self._device(client)
        if shown is not None and await unit.clients.known(user.id, [shown]):
            client.device.given = client.device.shown
            return shown
        client.device.given = self._secrets.token()
        return "device", self._secrets.known_hash("device", client.device.given)


def _id(account: str) -> str | UUID:
    try:
        return UUID(account)
    except ValueError:
        return account
