"""Where chaos happens: a stack with two of everything that may be two, and a proxy on every link inside."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import asyncpg
import redis

from deploy.local import secrets
from deploy.local.layout import HOST, ROOT, Layout
from deploy.local.stack import Stack
from servicekit.testing.proxy import Network
from tests.chaos import system
from tests.chaos.system import User

REPLICAS: Final = {"signer": 2, "keys": 2, "quota": 2, "logger": 2}
PATCHES: Final = Path(__file__).with_name("patches")
_proxies_above: Final = 700
"""The edge's port: clear of everything that the stack itself listens on."""


@dataclass(frozen=True)
class Stage:
    """A running stack and the network inside it."""

    layout: Layout
    stack: Stack
    network: Network
    redis: redis.Redis
    users: list[User]

    @property
    def edge(self) -> str:
        """Envoy, as a gRPC target."""
        return f"{HOST}:{self.layout.port('edge')}"

    @property
    def trigger(self) -> Path:
        """The file that makes a logger kill itself at its fault point."""
        return self.layout.run / "fault-point"

    async def sql(self) -> asyncpg.Connection[Any]:
        """A superuser's connection, past every proxy; the caller closes it."""
        return await asyncpg.connect(secrets.dsn(self.layout, secrets.SUPERUSER))

    def drain(self, seconds: float) -> None:
        """Return when every entry of the streams is acknowledged. Raises `TimeoutError`."""
        system.drain(self.redis, seconds)

    def reconcile(self) -> list[str]:
        """What the system's own reconciliation finds. Raises when it can't compare."""
        command = [
            sys.executable,
            "-m",
            "deploy.local",
            "exec",
            "logger",
            "services.logger.reconcile",
            "--json",
        ]
        environment = os.environ | {
            "SIGNGATE_RUN_DIR": self.layout.run.name,
            "SIGNGATE_PORT_SHIFT": str(self.layout.shift),
        }
        tries = 5  # a machine that is too busy to answer in time is no finding
        while True:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
            )
            tries -= 1
            if done.returncode in (0, 1):
                break
            if not tries:
                raise RuntimeError(f"nothing was reconciled: {done.stderr}")
        return [f"{one['kind']}: {one['what']}" for one in json.loads(done.stdout)["differences"]]

    def dead_letters(self) -> int:
        """Entries that were set aside."""
        return system.dead_letters(self.redis)


@contextmanager
def stage(
    users: list[User], *, run: str = ".run-chaos", shift: int = 7000, broken: str = ""
) -> Iterator[Stage]:
    """The stack from nothing, with these users made; gone at the end, but its logs are kept.

    `broken` names a patch (see patches/sitecustomize.py) that makes the logger a broken build.
    """
    plain = Layout(ROOT / run, shift, replicas=REPLICAS)
    Stack(plain).destroy()
    plain.run.mkdir(parents=True)
    secrets.ensure(plain)
    with Network() as network:
        patches = ",".join(filter(None, ("fault-point" if broken != "ack-first" else "", broken)))
        ports = iter(range(plain.port("edge") + _proxies_above, plain.port("edge") + _proxies_above + 100))
        layout = replace(
            plain,
            overrides=_overrides(plain, network, ports, patches),
            detours={
                instance.port("grpc"): network.link("envoy-signer", next(ports), instance.port("grpc")).port
                for instance in plain.instances("signer")
            },
        )
        stack = Stack(layout, say=lambda _: None)
        try:
            stack.up()
            edge = f"{HOST}:{layout.port('edge')}"
            made = [system.sign_up(edge, user, partial(_mails, layout)) for user in users]
            with redis.Redis.from_url(secrets.read(layout, "redis_url")) as client:
                found = Stage(layout, stack, network, client, made)
                asyncio.run(system.grant(found))
                yield found
        finally:
            kept = ROOT / ".build" / "chaos" / "logs"
            shutil.rmtree(kept, ignore_errors=True)
            if layout.logs.is_dir():
                shutil.copytree(layout.logs, kept)
            stack.destroy()


def _overrides(
    layout: Layout, network: Network, ports: Iterator[int], patches: str
) -> dict[str, dict[str, str]]:
    """Settings that lead each service to its peers and stores through proxies."""
    folder = layout.run / "proxied"
    folder.mkdir(mode=0o700)

    def store(service: str, kind: str, *names: str) -> list[str]:
        """Files with these secrets, which all lead through one proxy."""
        upstream = layout.port(kind)
        proxy = network.link(f"{service}-{kind}", next(ports), upstream)
        for name in names:
            path = folder / name
            path.touch(mode=0o600)
            path.write_text(secrets.read(layout, name).replace(f":{upstream}", f":{proxy.port}"))
        return [str(folder / name) for name in names]

    def peer(service: str, to: str) -> str:
        proxies = [
            network.link(f"{service}-{to}", next(ports), instance.port("grpc"))
            for instance in layout.instances(to)
        ]
        return "ipv4:" + ",".join(f"{HOST}:{proxy.port}" for proxy in proxies)

    found: dict[str, dict[str, str]] = {}
    for service in ("signer", "quota", "logger"):
        own, sessions = store(service, "redis", f"redis_url_{service}", f"redis_url_{service}_sessions")
        found[service] = {"SIGNGATE_REDIS_URL_FILE": own, "SIGNGATE_SESSIONS_REDIS_URL_FILE": sessions}
    (own,) = store("keys", "redis", "redis_url_keys")
    found["keys"] = {"SIGNGATE_REDIS_URL_FILE": own}
    for service in ("keys", "quota", "logger"):
        (dsn,) = store(service, "postgres", f"postgres_dsn_{service}")
        found[service]["SIGNGATE_POSTGRES_DSN_FILE"] = dsn
    found["signer"] |= {
        "SIGNGATE_KEYS_ADDR": peer("signer", "keys"),
        "SIGNGATE_QUOTA_ADDR": peer("signer", "quota"),
    }
    found["logger"] |= {
        "SIGNGATE_QUOTA_ADDR": peer("logger", "quota"),
        "PYTHONPATH": str(PATCHES),
        "CHAOS_PATCHES": patches,
        "CHAOS_TRIGGER": str(layout.run / "fault-point"),
    }
    return found


def _mails(layout: Layout, address: str) -> Iterator[bytes]:
    return (path.read_bytes() for path in layout.mail.glob(f"*-{address}.eml"))
