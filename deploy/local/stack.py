"""The local stack as one object: what the command line and the tests drive."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy import migrate
from deploy.envoy import render
from deploy.local import ports, postgres, programs, readiness, secrets
from deploy.local.edge import local_edge
from deploy.local.errors import StackError
from deploy.local.layout import Layout
from deploy.local.supervisor import Process, Supervisor

Say = Callable[[str], None]


def _print(line: str) -> None:
    print(line, flush=True)


_BASE = ["postgres", "redis", "limits", "mail"]


class Stack:
    """One stack in one run directory. `say` is told, line by line, what happens."""

    def __init__(self, layout: Layout, say: Say = _print) -> None:
        self.layout = layout
        self._say = say
        self._supervisor = Supervisor(layout)

    def up(self) -> None:
        """Bring everything up and return when it serves.

        What is running already stays; what is stopped or failed is started. If a part of a fresh start
        can't start, all is stopped again and `StackError` says why.
        """
        for folder in (self.layout.run, self.layout.logs, self.layout.mail):
            folder.mkdir(parents=True, exist_ok=True)
        with self._alone():
            begun = time.monotonic()
            if self._supervisor.running():
                self._say("The stack is already running; starting what is not.")
                self._bring_up(finish=False)
            else:
                self._launch()
                try:
                    self._bring_up(finish=True)
                except BaseException:
                    with suppress(StackError):
                        self._supervisor.shutdown()
                    raise
            self._say(f"Serving after {time.monotonic() - begun:.1f} s.")

    def down(self) -> bool:
        """Stop everything, keep all data. False if nothing ran."""
        if not self.layout.run.is_dir():
            return False
        with self._alone():
            ran = self._supervisor.running()
            if ran:
                self._supervisor.shutdown()
            return bool(ports.stop_leftovers(self.layout)) or ran

    def destroy(self) -> None:
        """Stop everything and remove all data."""
        self.down()
        if self.layout.run.is_dir():
            postgres.destroy(self.layout)
            shutil.rmtree(self.layout.run)

    def processes(self) -> dict[str, Process]:
        """Every process by name. Raises `StackError` when the stack does not run."""
        return self._supervisor.processes()

    def start(self, name: str) -> None:
        """Start one part and wait until it serves."""
        self._supervisor.start(name)
        readiness.wait(self.layout, name)

    def stop(self, name: str) -> None:
        """Stop one part in order; it stays stopped."""
        self._supervisor.stop(name)

    def restart(self, name: str) -> None:
        """Stop one part in order, start it, wait until it serves."""
        self.stop(name)
        self.start(name)

    def signal(self, name: str, signal: str) -> None:
        """Send one part a signal (`KILL`, `STOP`, `CONT`, …). What dies of it is started again."""
        self._supervisor.signal(name, signal)

    def wait(self, name: str) -> None:
        """Wait until one part serves."""
        readiness.wait(self.layout, name)

    def tail(self, name: str, lines: int = 30) -> str:
        """The end of a part's log."""
        path = self.log(name)
        if not path.exists():
            return ""
        with path.open(encoding="utf-8", errors="replace") as log:
            return "".join(deque(log, lines))

    def log(self, name: str) -> Path:
        """Where a part logs."""
        return self.layout.logs / f"{name}.log"

    def _launch(self) -> None:
        for leftover in ports.stop_leftovers(self.layout):
            self._say(f"Stopped {leftover}, left over from a run that did not end in order.")
        ports.check(self.layout)
        secrets.ensure(self.layout)
        if postgres.create(self.layout):
            self._say("Made a new database cluster.")
        render.write(local_edge(self.layout), self.layout.envoy_config)
        programs.write(self.layout)
        self._supervisor.launch()

    def _bring_up(self, *, finish: bool) -> None:
        """`finish`: nothing of an earlier version runs (see `deploy.migrate`)."""
        for name in _BASE:
            self._supervisor.start(name)
        with ThreadPoolExecutor() as pool:
            base = pool.submit(self._wait_for, [name for name in _BASE if name != "postgres"])
            self._wait_for(["postgres"])
            self._migrate(finish=finish)
            self._say("  database    migrated")
            base.result()
        rest = [p.name for p in programs.programs(self.layout) if p.name not in _BASE]
        for name in rest:
            self._supervisor.start(name)
        self._wait_for(rest)

    def _migrate(self, *, finish: bool) -> None:
        try:
            migrate.migrate(self.layout.secrets, finish=finish)
            readiness.apart(migrate.set_passwords(self.layout.secrets))
        except migrate.MigrationError as error:
            raise StackError(str(error), "postgres") from None

    def _wait_for(self, names: list[str]) -> None:
        """All of them at once, each told of when it is ready; the first failure ends the waiting."""
        pool = ThreadPoolExecutor(len(names))
        try:
            waits = {pool.submit(readiness.wait, self.layout, name): name for name in names}
            for done in as_completed(waits):
                self._say(f"  {waits[done]:<11} ready after {done.result():.1f} s")
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Only one `up` or `down` of a run directory at a time."""
        with (self.layout.run / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(f"Another command is starting or stopping {self.layout.run}") from None
            yield
