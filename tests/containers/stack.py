"""compose.yaml, running: what the tests drive, and what chaos' load and checks ask of a system."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import asyncpg
import redis
import yaml

import deploy.images
from deploy.local.layout import ROOT
from deploy.secrets import SUPERUSER, Folder
from deploy.settings import table
from tests.chaos import system
from tests.chaos.system import User
from tests.containers.engine import DATA, Engine

COMPOSE: Final = ROOT / "deploy" / "compose"


def _free_address() -> str:
    """Below the ports that the system gives to outgoing connections."""
    for port in range(30080, 30180):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"
    raise RuntimeError("no port is free for the edge")


def _stand_ins() -> Path:
    """A compose file that names the images of others without digests, which stand-ins can't have."""
    known = deploy.images.images()
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))["services"]
    bases = {name.upper(): known[name].name for name in ("python", "envoy")}
    parts: dict[str, Any] = {
        name: {"build": {"args": bases}} for name, part in services.items() if "build" in part
    }
    parts |= {name: {"image": known[name].name} for name in ("postgres", "redis")}
    path = DATA / "stand-ins.yaml"
    path.write_text(yaml.safe_dump({"services": parts}), encoding="utf-8")
    return path


LISTEN: Final = _free_address()
SERVICES: Final = tuple(table().services)


@dataclass(frozen=True)
class Stack:
    """The stack of one project, with secrets of its own; a user's own stack is none of its business.

    Stores publish no port: tests reach them by their containers' addresses, as this machine may.
    """

    engine: Engine
    users: list[User] = field(default_factory=list)
    browser: Mapping[str, str] = field(default_factory=dict)
    """What websdk.yaml asks of an operator; with it, the stack has the browser engine."""

    @property
    def edge(self) -> str:
        """Envoy, as a gRPC target."""
        return LISTEN

    @property
    def secrets(self) -> Path:
        """Where this project's are."""
        return DATA / "secrets"

    @property
    def environment(self) -> dict[str, str]:
        """What leads `docker compose`, and every script that calls it, to this project."""
        folders = (COMPOSE, Path(__file__).parent)
        names = ("compose.yaml", "websdk.yaml") if self.browser else ("compose.yaml",)
        files = [folder / name for name in names for folder in folders]
        if self.engine.ours:
            files.append(_stand_ins())
        return (
            dict(self.engine.environment)
            | dict(self.browser)
            | {
                "COMPOSE_PROJECT_NAME": "signgate-test",
                "COMPOSE_FILE": ":".join(map(str, files)),
                "COMPOSE_PROFILES": "dev",
                "SIGNGATE_VERSION": "test",
                "SIGNGATE_LISTEN": LISTEN,
                "SIGNGATE_EDGE_URL": f"http://{LISTEN}",
                "SIGNGATE_SECRETS": str(self.secrets),
                "SIGNGATE_USER": f"{os.getuid()}:{os.getgid()}",
            }
        )

    def compose(self, *command: str, seconds: float = 300) -> str:
        """`docker compose …`; returns what it prints. Raises `RuntimeError` with all that it says."""
        engine = replace(self.engine, environment=self.environment)
        return engine.run("compose", *command, seconds=seconds)

    def script(self, name: str, *arguments: str) -> str:
        """Run one of the operator's scripts; returns what it prints. Raises `RuntimeError`."""
        done = subprocess.run(
            [str(COMPOSE / name), *arguments],
            cwd="/",
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def up(self, *options: str) -> None:
        """Start what is not running and wait until all of it is healthy. Raises with logs if it is not."""
        try:
            self.compose("up", "--detach", "--wait", "--no-build", *options, seconds=600)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self.compose('logs', '--tail', '20')}") from error

    def down(self) -> None:
        """Stop everything and remove all data."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "2")

    def containers(self, service: str) -> list[str]:
        """Ids of a service's running containers."""
        return self.compose("ps", "--quiet", service).split()

    def inspect(self, container: str) -> dict[str, Any]:
        """All that the engine says of a container."""
        found: list[dict[str, Any]] = json.loads(self.engine.run("container", "inspect", container))
        return found[0]

    def address(self, container: str) -> str:
        """Where this machine reaches a container."""
        networks = self.inspect(container)["NetworkSettings"]["Networks"].values()
        return next(str(network["IPAddress"]) for network in networks if network["IPAddress"])

    def execute(self, container: str, *command: str) -> str:
        """Run a command in a container. Raises `RuntimeError`."""
        return self.engine.run("exec", container, *command)

    def kill(self, container: str) -> None:
        """`kill -9` what the container runs, from within: the engine starts it again, as after a crash."""
        self.execute(container, "sh", "-c", "kill -9 $(cat /proc/1/task/1/children)")

    def mails(self, address: str) -> Iterator[bytes]:
        """What was sent to an address, oldest first."""
        (catcher,) = self.containers("mail")
        for name in sorted(self.execute(catcher, "ls", "/mail").split()):
            if name.endswith(f"-{address}.eml"):
                yield self.execute(catcher, "cat", f"/mail/{name}").encode()

    def sign_up(self, user: User, password: str = "") -> User:
        """A user with a key, made as a stranger would."""
        return system.sign_up(self.edge, user, self.mails, password)

    async def sql(self) -> asyncpg.Connection[Any]:
        """A superuser's connection; the caller closes it."""
        (store,) = self.containers("postgres")
        return await asyncpg.connect(self._folder(self.address(store), "").dsn(SUPERUSER))

    def redis(self) -> redis.Redis:
        """A client; the caller closes it."""
        (store,) = self.containers("redis")
        return redis.Redis(
            host=self.address(store),
            password=self._folder("", "").read("redis"),
            ssl=True,
            ssl_ca_certs=str(self.secrets / "tls_ca.pem"),
            ssl_check_hostname=False,  # its certificate names what containers call it
        )

    def drain(self, seconds: float) -> None:
        """Return when every entry of the streams is acknowledged. Raises `TimeoutError`."""
        with self.redis() as server:
            system.drain(server, seconds)

    def dead_letters(self) -> int:
        """Entries that were set aside."""
        with self.redis() as server:
            return system.dead_letters(server)

    def reconcile(self) -> list[str]:
        """What the system's own reconciliation finds. Raises when it can't compare."""
        # It exits 1 where books differ, and then too says all that it found.
        command = "python -m services.logger.reconcile --json || [ $? = 1 ]"
        tries = 5  # a machine that is too busy to answer in time is no finding
        while True:
            try:
                told = self.compose("exec", "-T", "logger", "sh", "-c", command)
                return [f"{one['kind']}: {one['what']}" for one in json.loads(told)["differences"]]
            except RuntimeError:
                tries -= 1
                if not tries:
                    raise
                time.sleep(1.0)

    def _folder(self, postgres: str, server: str) -> Folder:
        return Folder(self.secrets, postgres, server, server)
