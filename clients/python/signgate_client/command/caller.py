"""Whom a call is made for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click

from signgate.auth.v1 import auth_pb2, user_pb2
from signgate_client.command.logins import Login, Logins
from signgate_client.errors import SigngateError
from signgate_client.sync import Signgate

RENEW_BEFORE = 30
OVER = frozenset({"REFRESH_TOKEN_NOT_FOUND", "REFRESH_TOKEN_ALREADY_USED", "SESSION_EXPIRED", "USER_BANNED"})


@dataclass(frozen=True)
class Caller:
    """The options before the subcommand. A key counts more than a kept login."""

    server: str
    tls: bool
    timeout: float
    as_json: bool
    api_key: str = field(default="", repr=False)
    logins: Logins = field(default_factory=Logins)
    clock: Callable[[], float] = time.time

    @contextmanager
    def anyone(self) -> Iterator[Signgate]:
        """A client without a credential."""
        with Signgate(self.server, timeout=self.timeout, tls=self.tls) as client:
            yield client

    @contextmanager
    def signed_in(self) -> Iterator[Signgate]:
        """A client for the key, or else for the kept login. Raises `ClickException` when there is neither."""
        credential = {"api_key": self.api_key} if self.api_key else {"access_token": self.token()}
        with Signgate(self.server, timeout=self.timeout, tls=self.tls, **credential) as client:
            yield client

    @contextmanager
    def by_key(self) -> Iterator[Signgate]:
        """A client for the key. Raises `ClickException` when none is given."""
        if not self.api_key:
            raise click.ClickException("Give the API key in SIGNGATE_API_KEY.")
        with self.signed_in() as client:
            yield client

    @contextmanager
    def user(self) -> Iterator[Signgate]:
        """A client for the kept login, also where a key is given. Raises `ClickException` without one."""
        with Signgate(self.server, timeout=self.timeout, tls=self.tls, access_token=self.token()) as client:
            yield client

    def begin(self, session: user_pb2.Session) -> None:
        """Keep the session for the commands to come."""
        self.logins.keep(self.server, Login.of(session))

    def token(self) -> str:
        """The kept login's access token, renewed when it ends soon."""
        login = self.logins.get(self.server)
        if login is None:
            raise click.ClickException(
                f"Nobody is signed in at {self.server}: `signgate login`, or give a key in SIGNGATE_API_KEY."
            )
        if self.clock() < login.expires_at - RENEW_BEFORE:
            return login.access_token
        with self.anyone() as client:
            request = auth_pb2.RefreshSessionRequest(refresh_token=login.refresh_token)
            try:
                session: user_pb2.Session = client.call(client.auth.RefreshSession, request).session
            except SigngateError as error:
                if error.reason in OVER:
                    self.logins.forget(self.server)
                raise
        self.begin(session)
        return session.access_token


pass_caller = click.make_pass_decorator(Caller)
