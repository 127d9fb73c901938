"""A Docker engine: the one that this user has, or one of our own, started for the tests.

Our own keeps its images in .build/docker, so that only a first run makes them, and is told to leave the
machine's firewall alone: its containers reach each other and this machine, and nobody outside.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from deploy.local.layout import ROOT

DATA: Final = ROOT / ".build" / "docker"
PATIENCE: Final = 60.0
"""Seconds that an engine may take to start or stop."""


class NoEngineError(Exception):
    """There is none, and none can be started. `str` says what to do."""


@dataclass(frozen=True)
class Engine:
    """`environment` leads the docker command to it. `ours`: it was started here, and may have stand-ins."""

    environment: Mapping[str, str]
    ours: bool

    def run(self, *command: str, standard_input: str | None = None, seconds: float = 300) -> str:
        """`docker …`; returns what it prints. Raises `RuntimeError` with all that it says when it fails."""
        done = subprocess.run(
            ["docker", *command],
            cwd=ROOT,
            env=os.environ | dict(self.environment),
            input=standard_input,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout


@contextmanager
def engine() -> Iterator[Engine]:
    """An engine with the compose plugin. Raises `NoEngineError`."""
    if not shutil.which("docker"):
        raise NoEngineError(
            "There is no docker command: install Docker, or run `make test` as root on Debian."
        )
    theirs = Engine({"DOCKER_CONFIG": str(_configuration())}, ours=False)
    if _answers(theirs):
        yield theirs
        return
    if os.getuid() != 0 or not shutil.which("dockerd"):
        raise NoEngineError(
            "No Docker engine answers, and only root can start one: start yours, or let this user use it."
        )
    with _own() as ours:
        yield ours


def _configuration() -> Path:
    """A configuration of docker's that has the compose plugin: this user's if it does, else one of ours."""
    found = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    given = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    if found.returncode == 0:
        return Path(given)
    folder = DATA / "config"
    plugins = folder / "cli-plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    plugin = plugins / "docker-compose"
    plugin.unlink(missing_ok=True)
    plugin.symlink_to(Path(sys.executable).with_name("docker-compose"))
    return folder


def _answers(engine: Engine) -> bool:
    with suppress(RuntimeError, subprocess.TimeoutExpired):
        engine.run("version", "--format", "{{.Server.Version}}", seconds=20)
        return True
    return False


@contextmanager
def _own() -> Iterator[Engine]:
    DATA.mkdir(parents=True, exist_ok=True)
    # Sockets have short names, whatever this checkout's is.
    state = Path("/run") / f"signgate-docker-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:12]}"
    state.mkdir(mode=0o700, exist_ok=True)
    _stop_leftover(state / "pid")
    socket = f"unix://{state}/sock"
    log = DATA / "dockerd.log"
    command = [
        *("dockerd", "--host", socket, "--pidfile", f"{state}/pid"),
        *("--data-root", f"{DATA}/data", "--exec-root", f"{state}/exec"),
        *("--iptables=false", "--ip6tables=false", "--ip-forward=false"),
    ]
    with log.open("w") as told:
        daemon = subprocess.Popen(command, stdout=told, stderr=told, start_new_session=True)
    engine = Engine(
        {
            "DOCKER_HOST": socket,
            "DOCKER_CONFIG": str(_configuration()),
            "DOCKER_BUILDKIT": "0",  # the other builder is a plugin that Debian's package lacks
        },
        ours=True,
    )
    try:
        end = time.monotonic() + PATIENCE
        while not _answers(engine):
            if daemon.poll() is not None or time.monotonic() > end:
                raise NoEngineError(f"dockerd does not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.2)
        yield engine
    finally:
        daemon.terminate()
        daemon.wait(PATIENCE)


def _stop_leftover(pid_file: Path) -> None:
    """End the engine of a run that was cut off."""
    with suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
        leftover = psutil.Process(int(pid_file.read_text()))
        if f"{DATA}/data" in leftover.cmdline():
            leftover.terminate()
            leftover.wait(PATIENCE)
