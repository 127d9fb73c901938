"""Every fault there is, and the seeded order in which they come."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar

from deploy.local.errors import StackError
from deploy.local.layout import HOST, ROOT
from tests.chaos.stage import REPLICAS, Stage
from tests.chaos.system import System

S = TypeVar("S", bound=System)


@dataclass(frozen=True)
class Fault(Generic[S]):
    """`act` causes it, and ends it too where it has an end. It runs in a thread and may take long."""

    name: str
    act: Callable[[S, random.Random], None]


def _one(service: str, stage: Stage, chance: random.Random) -> str:
    """An instance of a service, as the stack names them."""
    return chance.choice(_all(service, stage))


def _all(service: str, stage: Stage) -> list[str]:
    if service not in REPLICAS:
        return [service]
    return [instance.name for instance in stage.layout.instances(service)]


def _kill(service: str, stage: Stage, chance: random.Random) -> None:
    stage.stack.signal(_one(service, stage, chance), "KILL")


def _kill_all(service: str, stage: Stage, chance: random.Random) -> None:
    for name in _all(service, stage):
        stage.stack.signal(name, "KILL")


def _pause(service: str, seconds: float, stage: Stage, chance: random.Random) -> None:
    name = _one(service, stage, chance)
    stage.stack.signal(name, "STOP")
    try:
        time.sleep(seconds)
    finally:
        stage.stack.signal(name, "CONT")


def _kill_store(name: str, stage: Stage, chance: random.Random) -> None:
    stage.stack.signal(name, "KILL")
    _until_serving(name, stage)


def _stop_postgres(seconds: float, stage: Stage, chance: random.Random) -> None:
    stage.stack.stop("postgres")
    try:
        time.sleep(seconds)
    finally:
        stage.stack.start("postgres")


def _until_serving(name: str, stage: Stage) -> None:
    """The supervisor starts it again, and once more where what was left of the last one is in the way.

    If it gave up, we do.
    """
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with suppress(StackError):
            stage.stack.wait(name)
            return
        time.sleep(0.5)
    stage.stack.start(name)


def _cut(link: str, seconds: float, stage: Stage, chance: random.Random) -> None:
    stage.network.cut(link)
    try:
        time.sleep(seconds)
    finally:
        stage.network.heal(link)


def _hold(link: str, seconds: float, stage: Stage, chance: random.Random) -> None:
    stage.network.hold(link)
    try:
        time.sleep(seconds)
    finally:
        stage.network.heal(link)


def _slow(link: str, delay: float, seconds: float, stage: Stage, chance: random.Random) -> None:
    stage.network.slow(link, delay)
    try:
        time.sleep(seconds)
    finally:
        stage.network.heal(link)


def _fault_point(stage: Stage, chance: random.Random) -> None:
    """The next logger that has committed dies before it acknowledges."""
    stage.trigger.touch()
    end = time.monotonic() + 10
    while stage.trigger.exists():
        if time.monotonic() > end:
            raise TimeoutError("no logger came to its fault point")
        time.sleep(0.02)


def _full_memory(seconds: float, stage: Stage, chance: random.Random) -> None:
    """Redis takes nothing more, as if all the memory that it may have were in use."""
    before = stage.redis.config_get("maxmemory")["maxmemory"] or 0
    stage.redis.config_set("maxmemory", 1)
    try:
        time.sleep(seconds)
    finally:
        stage.redis.config_set("maxmemory", before)


def _full_disk(name: str, stage: Stage, chance: random.Random) -> None:
    """No file of a store grows any more (EFBIG, where a full disk says ENOSPC) until it has ended by that.

    Its successor has room again. What was written in part remains so.
    """
    pid = stage.stack.processes()[name].pid
    try:
        whom = map(str, (pid, *_children(pid)))
        command = [sys.executable, "-m", "tests.chaos.bound_files", str(_largest(name, stage)), *whom]
        subprocess.run(command, cwd=ROOT, check=True)
        end = time.monotonic() + 20
        while stage.stack.processes()[name].pid == pid:
            if time.monotonic() > end:
                raise TimeoutError(f"{name} goes on without a disk")
            time.sleep(0.05)
    finally:
        _until_serving(name, stage)


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _largest(name: str, stage: Stage) -> int:
    """Where files end: in the middle of the next write to Redis's; at once for PostgreSQL."""
    if name != "redis":
        return 0
    return max(path.stat().st_size for path in stage.layout.redis.rglob("*.aof")) + 64


def _garbage(seconds: float, stage: Stage, chance: random.Random) -> None:
    """Nonsense in several dialects to every port there is, over connections that stay open for a while."""
    with ExitStack() as held:
        for _, port in stage.layout.all_ports():
            for opening in DIALECTS:
                with suppress(OSError):
                    connection = held.enter_context(socket.create_connection((HOST, port), 1.0))
                    connection.sendall(opening + chance.randbytes(chance.randint(1, 4096)))
        time.sleep(seconds)


DIALECTS: Final = (
    b"",
    b"\x16\x03\x01\x02\x00",  # the beginning of a TLS handshake
    b"GET /webcast/sign_url?url=",
    b"POST /v1/sign HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"*3\r\n$3\r\nSET\r\n",  # Redis's
)

LINKS: Final = (
    "envoy-signer", "signer-keys", "signer-quota", "signer-redis", "keys-redis", "quota-redis",
    "logger-redis", "keys-postgres", "logger-postgres", "quota-postgres", "logger-quota",
)  # fmt: skip

QUICK: Final[tuple[Fault[Stage], ...]] = (
    *(Fault(f"kill -9 a {name}", partial(_kill, name)) for name in ("signer", "quota", "keys", "logger")),
    Fault("logger dies between commit and acknowledgement", _fault_point),
    Fault("kill -9 Redis, restarted from its file", partial(_kill_store, "redis")),
    Fault("kill -9 PostgreSQL", partial(_kill_store, "postgres")),
    Fault("cut signer-redis for 2 s", partial(_cut, "signer-redis", 2.0)),
    Fault("pause a quota for 2 s", partial(_pause, "quota", 2.0)),
    Fault("Redis's memory is full for 2 s", partial(_full_memory, 2.0)),
    Fault("Redis's disk is full", partial(_full_disk, "redis")),
    Fault("garbage at every port", partial(_garbage, 1.0)),
)
"""The shortened run's: each once."""

LONG: Final[tuple[Fault[Stage], ...]] = (
    *QUICK,
    *(
        Fault(f"kill -9 every {name}", partial(_kill_all, name))
        for name in ("signer", "quota", "keys", "logger")
    ),
    *(
        Fault(f"pause a {name} for 4 s", partial(_pause, name, 4.0))
        for name in ("signer", "keys", "logger", "quota")
    ),
    Fault("pause Redis for 3 s", partial(_pause, "redis", 3.0)),
    Fault("pause PostgreSQL for 4 s", partial(_pause, "postgres", 4.0)),
    Fault("stop PostgreSQL for 20 s", partial(_stop_postgres, 20.0)),
    Fault("PostgreSQL's disk is full", partial(_full_disk, "postgres")),
    Fault("kill -9 auth", partial(_kill, "auth")),
    Fault("kill -9 Envoy", partial(_kill, "envoy")),
    Fault("pause Envoy for 3 s", partial(_pause, "envoy", 3.0)),
    *(Fault(f"cut {link} for 3 s", partial(_cut, link, 3.0)) for link in LINKS),
    *(Fault(f"swallow {link} for 3 s", partial(_hold, link, 3.0)) for link in LINKS),
    *(Fault(f"slow {link} by 30 ms for 4 s", partial(_slow, link, 0.03, 4.0)) for link in LINKS),
)
"""The whole run's: each at least once, then again and again while there is time."""


def schedule(
    faults: tuple[Fault[S], ...], seed: int, *, forever: bool
) -> Iterator[tuple[Fault[S], random.Random, float]]:
    """Each fault once in an order of the seed's, with its own chance, and the seconds of peace after it."""
    number = 0
    while True:
        order = list(faults)
        random.Random(f"{seed}/{number}").shuffle(order)
        for place, fault in enumerate(order):
            chance = random.Random(f"{seed}/{number}/{place}")
            yield fault, chance, chance.uniform(1.0, 3.0)
        number += 1
        if not forever:
            return
