"""Talking to this stack's supervisord."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import Faults, SupervisorTransport

from deploy.local.errors import StackError
from deploy.local.layout import Layout

_ALREADY = {Faults.ALREADY_STARTED, Faults.NOT_RUNNING}


@dataclass(frozen=True)
class Process:
    """A process as supervisord sees it. `state` is its word: RUNNING, STARTING, BACKOFF, FATAL, STOPPED."""

    name: str
    state: str
    pid: int
    description: str


class Supervisor:
    """supervisord by its control socket. Every call raises `StackError` when it does not run."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def running(self) -> bool:
        """True if this stack's supervisord answers."""
        try:
            self._call("getState")
        except StackError:
            return False
        return True

    def launch(self) -> None:
        """Start supervisord; returns when it answers. It starts no program by itself."""
        # A stray setting in the caller's shell must not reach the services; nor must they be kept from
        # keeping their compiled modules, which makes the difference between a quick start and a slow one.
        stray = ("SIGNGATE_", "PYTHONDONTWRITEBYTECODE")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(stray)}
        program = Path(sys.executable).with_name("supervisord")
        result = subprocess.run(
            [str(program), "--configuration", str(self._layout.supervisor_config)],
            env=clean,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise StackError(f"supervisord did not start:\n{result.stdout}{result.stderr}", "supervisord")
        self._wait(up=True)

    def shutdown(self) -> None:
        """Stop every program, the edge first and the databases last, then supervisord; waits for the end."""
        self._call("shutdown")
        self._wait(up=False)

    def processes(self) -> dict[str, Process]:
        """Every program by name."""
        return {
            info["name"]: Process(info["name"], info["statename"], info["pid"], info["description"])
            for info in self._call("getAllProcessInfo")
        }

    def start(self, name: str) -> None:
        """Start a program unless it runs; does not wait."""
        self._call("startProcess", self._full(name), False)

    def stop(self, name: str) -> None:
        """Stop a program and wait until it has ended. It stays stopped."""
        self._call("stopProcess", self._full(name), True)

    def signal(self, name: str, signal: str) -> None:
        """Send a signal, as in `KILL`. A program that dies of it is started again."""
        self._call("signalProcess", self._full(name), signal)

    def _full(self, name: str) -> str:
        for info in self._call("getAllProcessInfo"):
            if info["name"] == name:
                return f"{info['group']}:{name}"
        raise StackError(f"There is no part named {name}")

    def _call(self, method: str, *arguments: Any) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._layout.socket}")
        server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(server.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode in _ALREADY:
                return None
            raise StackError(f"supervisord refused {method} {arguments}: {fault.faultString}") from None
        except (OSError, xmlrpc.client.ProtocolError) as error:
            raise StackError("The stack is not running: make up") from error
        finally:
            transport.close()

    def _wait(self, *, up: bool, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        pidfile = self._layout.run / "supervisord.pid"
        while self.running() is not up or (not up and pidfile.exists()):
            if time.monotonic() > end:
                raise StackError(f"supervisord did not {'start' if up else 'stop'}", "supervisord")
            time.sleep(0.05)
