"""The browser of a container of its own, as the process that runs there."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import playwright
import psutil

from deploy import rendered
from deploy.local.layout import ROOT
from tests.integration.engines.standin import CHROMIUM

DRIVER = Path(playwright.__file__).with_name("driver")
SERVE = ROOT / "deploy/docker/browser/serve.js"


class RemoteBrowser:
    """deploy/docker/browser/serve.js with its own configuration, but for the port and the binary."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}"
        self._config = folder / "browser.json"
        told = rendered.browser() | {"port": self.port, "executablePath": str(CHROMIUM), "host": "127.0.0.1"}
        self._config.write_text(json.dumps(told))
        self._log = folder / "browser.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it takes connections, as the container's health check asks."""
        command = [str(DRIVER / "node"), str(SERVE), str(DRIVER / "package"), str(self._config)]
        with self._log.open("ab") as log:
            # No secret of this process's: what a container gives.
            environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        end = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/json", timeout=5).is_success:
                    return
            except httpx.HTTPError:
                assert self.process.poll() is None, self.said()
                assert time.monotonic() < end, self.said()
                time.sleep(0.05)

    def chromium(self) -> psutil.Process:
        """The browser's own process, parent of all others."""
        assert self.process is not None
        (found,) = psutil.Process(self.process.pid).children()
        return found

    def family(self) -> list[psutil.Process]:
        """Every process of the browser."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def ended(self, seconds: float) -> int:
        """Its exit status. Raises `TimeoutExpired` while it runs on."""
        assert self.process is not None
        return self.process.wait(seconds)

    def said(self) -> str:
        """All of its log."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        """As `docker stop` does."""
        if self.process is not None and self.process.poll() is None:
            family = self.family()
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            finally:
                for process in family:
                    if process.is_running():
                        process.kill()
                if self.process.poll() is None:
                    self.process.kill()
                    self.process.wait()
