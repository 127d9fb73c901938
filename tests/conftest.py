"""One real stack for the whole run, started by the first test that asks for it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings

from deploy.local import ports, secrets
from deploy.local.errors import StackError
from deploy.local.layout import HOST, ROOT, Layout
from deploy.local.stack import Stack

T = TypeVar("T")

settings.register_profile("untimed", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("untimed")

PORT_SHIFT = 10_000
"""Below the ports that the system gives to outgoing connections, and clear of a developer's own stack."""
SLOTS = 8

AUTH_RATES = {
    f"SIGNGATE_RATE_{name}": "100000 per minute"
    for name in ("SIGN_IN_IP", "SIGN_UP_IP", "VERIFY_IP", "REFRESH_IP", "MAIL_IP")
}
"""All tests come from one network address. The limits by account stay as they are by default; that those
by address are on by default and refuse, `tests/integration/auth/test_limits.py` shows."""

PATIENCE = {
    "quota": {"SIGNGATE_REDIS_TIMEOUT": "4"},
    "signer": {"SIGNGATE_REDIS_TIMEOUT": "4", "SIGNGATE_PEER_TIMEOUT": "4", "SIGNGATE_MAX_WAIT": "9"},
}
"""A busy machine, or its disk, may keep Redis waiting for longer than the 80 ms after which quota gives up by
default, and the signer not much later; that they do, `tests/integration/{quota,signer}` show."""


OUTSIDE_ISSUER = "https://project.outside.test/auth/v1"
"""Trusted by the services that take access tokens; its published keys are at `Running.outside_jwks`."""
OUTSIDE_PORT = 700
"""Above the edge's."""


@dataclass(frozen=True)
class Running:
    """The stack as tests see it. `stack` starts, stops, restarts and signals its parts."""

    stack: Stack
    layout: Layout

    @property
    def edge_url(self) -> str:
        """The door, for HTTP."""
        return self.layout.edge_url

    @property
    def edge(self) -> str:
        """The door, as a gRPC target."""
        return f"{HOST}:{self.layout.port('edge')}"

    @property
    def admin_url(self) -> str:
        """Envoy's own admin interface, which is no part of the door."""
        return f"http://{HOST}:{self.layout.port('envoy_admin')}"

    @property
    def edge_metrics_url(self) -> str:
        """What Prometheus reads of Envoy."""
        return f"http://{HOST}:{self.layout.port('envoy_metrics')}/metrics"

    @property
    def outside_jwks(self) -> tuple[str, int]:
        """Where services look for the outside issuer's keys: a test that needs them serves them there."""
        return HOST, self.layout.port("edge") + OUTSIDE_PORT

    @property
    def mail_folder(self) -> Path:
        """Where caught mail lands."""
        return self.layout.mail

    @property
    def redis_url(self) -> str:
        """The stack's Redis, password included."""
        return secrets.read(self.layout, "redis_url")

    def dsn(self, role: str = secrets.SUPERUSER) -> str:
        """The database, as the superuser or as a service's login role."""
        return secrets.dsn(self.layout, role)

    def target(self, service: str) -> str:
        """A service itself, behind the door: for looking at what callers must not reach."""
        return self.layout.target(service)

    def credential(self, caller: str, called: str) -> tuple[str, str]:
        """The metadata by which one service proves itself to another."""
        return secrets.peer(self.layout, caller, called).identity.pair(called)

    def address(self, service: str, kind: str) -> str:
        """Where a service's first instance listens for `grpc`, `http` or `metrics`."""
        return self.layout.instances(service)[0].address(kind)

    def log(self, part: str) -> str:
        """All that a part has logged."""
        return self.stack.log(part).read_text(encoding="utf-8", errors="replace")

    def wait_for_mail(
        self, recipient: str, *, after: int = 0, seconds: float = 30.0, keys: bool = False
    ) -> EmailMessage:
        """The newest message to a recipient, once there are more than `after`. Fails after `seconds`.

        Those that tell of changed API keys come when they come: they count only, and alone, with `keys`.
        """

        def look() -> list[EmailMessage]:
            read = (file.read_bytes() for file in sorted(self.mail_folder.glob(f"*-{recipient}.eml")))
            found = [message_from_bytes(one, _class=EmailMessage, policy=policy.default) for one in read]
            return [one for one in found if (" API key " in f" {one['Subject']} ") == keys][after:]

        return self.eventually(look, seconds, f"mail to {recipient}")[-1]

    @staticmethod
    def eventually(look: Callable[[], T], seconds: float, what: str) -> T:
        """The first truthy result of `look`; fails if there is none within `seconds`."""
        end = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > end:
                pytest.fail(f"waited {seconds} s in vain for {what}")
            time.sleep(0.05)
        return found


@contextmanager
def serving(layout: Layout) -> Iterator[Running]:
    """A stack that is up inside the block, and down after it."""
    stack = Stack(layout)
    stack.up()
    try:
        yield Running(stack, layout)
    finally:
        stack.down()


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """The whole product, from nothing, in a run directory and on ports of its own."""
    signal.signal(
        signal.SIGTERM, signal.default_int_handler
    )  # a run that is told to end takes its stack along
    with free_layout() as layout, serving(layout) as found:
        yield found


@pytest.fixture(scope="session")
def service_role(running: Running) -> str:
    """An operator's token, as the tool for it makes it; it outlives the run."""
    settings = os.environ | {
        "SIGNGATE_JWT_KEYSET_FILE": str(running.layout.secrets / "jwt_keyset"),
        "SIGNGATE_JWT_ISSUER": f"{running.edge_url}/auth/v1",
    }
    tool = [sys.executable, "-m", "services.auth.admin", "token", "--role", "service_role", "--ttl", "7200"]
    done = subprocess.run(tool, cwd=ROOT, env=settings, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def outside_issuer(layout: Layout) -> dict[str, dict[str, str]]:
    """What services are told of it."""
    where = f"http://{HOST}:{layout.port('edge') + OUTSIDE_PORT}/jwks.json"
    issuer = {"name": OUTSIDE_ISSUER, "jwks_url": where, "internal": True}
    setting = {"SIGNGATE_OUTSIDE_ISSUERS": json.dumps([issuer])}
    return dict.fromkeys(("keys", "quota", "signer", "logger"), setting)


def overrides(layout: Layout) -> dict[str, dict[str, str]]:
    """What services are told in tests that they are not told by the table."""
    told = {"auth": AUTH_RATES} | outside_issuer(layout)
    for service, patience in PATIENCE.items():
        told[service] = told[service] | patience
    return told


@contextmanager
def free_layout() -> Iterator[Layout]:
    """An empty run directory, and ports that nobody has: several runs may go on side by side."""
    (ROOT / ".build").mkdir(exist_ok=True)
    for number in range(SLOTS):
        name = ".run-test" if number == 0 else f".run-test-{number}"
        layout = Layout(ROOT / name, PORT_SHIFT + 1000 * number)
        layout = replace(layout, overrides=overrides(layout))
        with (ROOT / ".build" / f"test-run-{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                Stack(layout).destroy()
                ports.check(layout)
            except (BlockingIOError, StackError):
                continue
            yield layout
            return
    pytest.exit(f"none of {SLOTS} sets of ports is free for a test run", returncode=1)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test that was skipped has proved nothing: in CI the run fails, and says which."""
    if not os.environ.get("CI"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        reporter.write_line("\nSkipped tests count as failures.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
