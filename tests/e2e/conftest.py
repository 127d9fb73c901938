"""Accounts on the running stack, made as a stranger would make them: through the edge."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from signgate.auth.v1 import user_pb2
from signgate_client import Signgate
from tests.conftest import Running


@dataclass(frozen=True)
class Account:
    """A confirmed user with a session and a key."""

    email: str
    password: str
    session: user_pb2.Session
    key: str
    key_id: str


@pytest.fixture(scope="session")
def new_account(running: Running) -> Callable[[], Account]:
    """Make a confirmed user, by mail and all."""
    return lambda: make_account(running)


def make_account(running: Running) -> Account:
    """A confirmed user of that stack."""
    email, password = f"e2e-{secrets.token_hex(6)}@example.com", secrets.token_urlsafe(18)
    with Signgate(running.edge) as anyone:
        anyone.sign_up(email, password)
        session = anyone.confirm(email, mailed_code(running, email))
    with Signgate(running.edge, access_token=session.access_token) as user:
        created = user.create_key("e2e")
    return Account(email, password, session, created.secret, created.key.id)


@pytest.fixture
def account(new_account: Callable[[], Account]) -> Account:
    return new_account()


def mailed_code(running: Running, email: str) -> str:
    """The six digits of the newest mail to an address."""
    body = running.wait_for_mail(email).get_body(("plain",))
    assert body is not None
    found = re.search(r"\b\d{6}\b", body.get_content())
    assert found
    return found.group()
