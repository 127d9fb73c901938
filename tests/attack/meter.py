"""What a request costs the service that serves it, and how long a neighbour of it waits meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from tests.conftest import Running


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, all its threads together, to the microsecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            total += int((task / "schedstat").read_text(encoding="ascii").split()[0])
    return total / 1e9


class Meter:
    """Measures calls to one service at a time."""

    def __init__(self, running: Running) -> None:
        self._pids = {name: process.pid for name, process in running.stack.processes().items()}

    def cost(self, service: str, send: Callable[[], object]) -> float:
        """Seconds of the service's CPU while `send` ran; what goes on in it besides counts too."""
        before = cpu_seconds(self._pids[service])
        send()
        return cpu_seconds(self._pids[service]) - before


class Neighbour:
    """Asks for something cheap, again and again, through the edge: of one service at a time."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.url = ""
        self._headers = headers
        self._lock = threading.Lock()
        self._since: float | None = None
        self._longest = 0.0
        self._over = threading.Event()

    @contextmanager
    def asking(self) -> Iterator[Neighbour]:
        """Asks inside the block."""
        thread = threading.Thread(target=self._ask, name="neighbour", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join(30)

    def longest(self) -> float:
        """The longest wait since this was last asked, in seconds: that of a request under way included."""
        with self._lock:
            now = time.monotonic()
            found = max(self._longest, 0.0 if self._since is None else now - self._since)
            self._longest = 0.0
            if self._since is not None:
                self._since = now
            return found

    def _ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._over.wait(0.05):
                with self._lock:
                    self._since = time.monotonic()
                with suppress(httpx.HTTPError):
                    client.get(self.url, headers=self._headers)
                with self._lock:
                    if self._since is not None:
                        self._longest = max(self._longest, time.monotonic() - self._since)
                    self._since = None
