"""The load: h2load (nghttp2) in several processes, each with a credential of its own.

A native generator, so that it takes little of the machine that it measures. h2load looks at HTTP's
status only, which is 200 whatever became of a gRPC call. So whoever runs a load holds gRPC's against what
the servers counted (`bench.world`), or against the bytes of the messages that came back.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.message import Message

Credential = str

_summary: Final = re.compile(
    r"finished in ([\d.]+)(us|ms|s), .*?"
    r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout"
    r".*?\((\d+)\) data",
    re.DOTALL,
)
_units: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


class LoadError(Exception):
    """The load did not run as it was told, or not every request was answered."""


def check_tool() -> None:
    """Raise `LoadError` unless h2load is there."""
    if shutil.which("h2load") is None:
        raise LoadError("h2load is missing: `make loadtools` installs it (as root), Debian's nghttp2-client")


@dataclass(frozen=True)
class Target:
    """Where a load goes: a unary or streaming gRPC method and the messages of each request.

    With several addresses each process of the load has one of them, in turn.
    """

    addresses: Sequence[str]
    method: str
    body: Path
    credentials: Sequence[Credential]


@dataclass(frozen=True)
class Load:
    """What came of it. `received`: bytes of messages; a gRPC call that fails has none.

    `latencies` are in seconds, in no order; empty unless asked for.
    """

    requests: int
    seconds: float
    received: int
    latencies: Sequence[float] = ()

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    def percentile(self, share: float) -> float:
        """Nearest rank, upwards, in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def body(folder: Path, name: str, messages: Sequence[Message]) -> Path:
    """A file with the messages as gRPC frames them."""
    path = folder / f"{name}.grpc"
    frames = (message.SerializeToString() for message in messages)
    path.write_bytes(b"".join(struct.pack(">BI", 0, len(frame)) + frame for frame in frames))
    return path


def run(
    target: Target, requests: int, *, callers: int, per_second: float | None = None, log: bool = False
) -> Load:
    """Send so many requests in all, from so many callers, each with one on its way at a time.

    Callers are connections, shared out over a process for each credential. With `per_second` the
    requests of all together are paced. Raises `LoadError` unless all are answered with HTTP's 200.
    """
    processes = min(len(target.credentials), callers)
    each, connections = requests // processes, callers // processes
    with tempfile.TemporaryDirectory() as folder:
        commands = [
            _command(target, number, each, connections, per_second and per_second / callers)
            + ([f"--log-file={folder}/{number}"] if log else [])
            for number in range(processes)
        ]
        began = time.perf_counter()
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for command in commands
        ]
        outputs = [process.communicate()[0] for process in running]
        seconds = time.perf_counter() - began
        latencies = [
            int(line.split("\t")[2]) / 1e6
            for path in Path(folder).iterdir()
            for line in path.read_text(encoding="ascii").splitlines()
        ]
    received = sum(_check(output, each) for output in outputs)
    return Load(each * processes, seconds, received, latencies)


def _command(
    target: Target, number: int, requests: int, connections: int, per_second: float | None
) -> list[str]:
    return [
        "h2load",
        *("-n", str(requests), "-c", str(connections), "-m", "1"),
        *("-H", "content-type: application/grpc", "-H", "te: trailers"),
        *("-H", f"x-api-key: {target.credentials[number]}"),
        *("-d", str(target.body)),
        *(["--rps", f"{per_second:.3f}"] if per_second else []),
        f"http://{target.addresses[number % len(target.addresses)]}/{target.method}",
    ]


def _check(output: str, requests: int) -> int:
    """The bytes of messages received, frames and all."""
    found = _summary.search(output)
    if found is None:
        raise LoadError(f"h2load said: {output[-500:]}")
    succeeded, failed, errored, timeout, received = map(int, found.groups()[2:])
    if succeeded != requests or failed or errored or timeout:
        raise LoadError(f"{requests} asked: {succeeded} answered, {failed} failed, {errored} errored")
    return received
