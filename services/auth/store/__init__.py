"""All SQL of the auth service, run as the role `signgate_auth`.

A use case opens one `Unit` for what must happen together; leaving it commits, an exception rolls back.
So what must stay although the call fails (a wrong try of a code) is written in a unit that ends first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from servicekit.postgres import Database
from services.auth.store.accounts import Accounts
from services.auth.store.audit import Audit
from services.auth.store.clients import Clients
from services.auth.store.codes import Codes
from services.auth.store.factors import Factors
from services.auth.store.flows import Flows
from services.auth.store.sessions import Sessions

if TYPE_CHECKING:
    from servicekit.postgres import Connection

__all__ = ["Store", "Unit"]


class Unit:
    """One transaction, and the tables as objects."""

    def __init__(self, connection: Connection) -> None:
        self.accounts = Accounts(connection)
        self.sessions = Sessions(connection)
        self.codes = Codes(connection)
        self.flows = Flows(connection)
        self.factors = Factors(connection)
        self.audit = Audit(connection)
        self.clients = Clients(connection)
        self.after: list[Callable[[], None]] = []
        """What to do once all of it is committed, such as handing in a letter; it must not raise."""


class Store:
    """Opens units. Trouble with the database comes out as `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[Unit]:
        """A transaction: committed at the end, rolled back on any exception."""
        async with self._database.transaction() as connection:
            unit = Unit(connection)
            yield unit
        for work in unit.after:
            work()

    async def ping(self) -> None:
        """One round trip. Raises `DatabaseUnavailable`."""
        await self._database.ping()

    async def sweep(self) -> None:
        """Delete what has ended and tells nothing any more. Safe to run in several replicas."""
        async with self.unit() as unit:
            await unit.codes.sweep()
            await unit.flows.sweep()
            await unit.factors.sweep()
            await unit.sessions.sweep()
            await unit.clients.sweep()
