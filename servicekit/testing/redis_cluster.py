"""A real Redis Cluster for tests: three masters without replicas, all slots, on 127.0.0.1.

with redis_cluster() as cluster:
    async with open_redis(cluster.url) as client: ...
"""

from __future__ import annotations

import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis import Redis
from redis.exceptions import RedisError

from servicekit.testing.network import RedisProcess, free_port

SLOTS: Final = 16384
_bus: Final = 10_000  # what Redis adds to a port for the nodes' own talk
_highest: Final = 65_535


@dataclass(frozen=True, slots=True)
class RedisClusterProcesses:
    """The masters, in the order of their slots."""

    masters: list[RedisProcess]

    @property
    def url(self) -> str:
        """For `servicekit.redis.open_redis`."""
        return f"redis+cluster://127.0.0.1:{self.masters[0].port}"

    def flush(self) -> None:
        """Lose all data, everywhere."""
        for master in self.masters:
            with _client(master) as client:
                client.flushall()


@contextmanager
def redis_cluster(*options: str, always: Sequence[str] = ()) -> Iterator[RedisClusterProcesses]:
    """A cluster that takes writes to every slot. Raises `RuntimeError` when it does not form in 20 s."""
    with ExitStack() as stack:
        masters = []
        for number in range(3):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="signgate-cluster-")))
            master = RedisProcess(directory, always)
            master.port = _port_with_bus()
            master.url = f"redis://127.0.0.1:{master.port}/0"
            master.start(
                *("--cluster-enabled", "yes", "--cluster-node-timeout", "2000"),
                *("--cluster-require-full-coverage", "no", "--appendonly", "no", *options),
            )
            stack.callback(master.stop)
            with _client(master) as client:
                slots = range(SLOTS * number // 3, SLOTS * (number + 1) // 3)
                client.execute_command("CLUSTER", "ADDSLOTS", *slots)
                # Epochs that differ from the start spare the nodes from settling who is newer.
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            masters.append(master)
        with _client(masters[0]) as first:
            for master in masters[1:]:
                first.execute_command("CLUSTER", "MEET", "127.0.0.1", master.port)
        _wait(masters)
        yield RedisClusterProcesses(masters)


def _wait(masters: list[RedisProcess]) -> None:
    """Every node knows every slot's owner."""
    give_up = time.monotonic() + 20
    for master in masters:
        with _client(master) as client:
            while True:
                try:
                    found = client.execute_command("CLUSTER INFO")
                except RedisError:
                    found = {}
                if _says(found, "cluster_state", "ok") and _says(found, "cluster_slots_ok", str(SLOTS)):
                    break
                if time.monotonic() > give_up:
                    raise RuntimeError("the cluster did not form")
                time.sleep(0.05)


def _says(info: Any, name: str, value: str) -> bool:
    text = info if isinstance(info, dict) else {}
    return str(text.get(name)) == value


def _client(master: RedisProcess) -> Redis:
    return Redis(host="127.0.0.1", port=master.port, decode_responses=True, socket_timeout=5)


def _port_with_bus() -> int:
    """A free port whose bus port exists and is free too."""
    while True:
        port = free_port()
        if port + _bus > _highest:
            with socket.socket() as low:
                # The system hands out high ports: look below them instead.
                port -= 2 * _bus
                try:
                    low.bind(("127.0.0.1", port))
                except OSError:
                    continue
        with socket.socket() as bus:
            try:
                bus.bind(("127.0.0.1", port + _bus))
            except OSError:
                continue
        return port
