"""Unmodified clients, each in an environment of its own, and a stack with every engine to ask."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.edge import EnginesEdge, engines_edge
from tests.conftest import Running
from tests.e2e.conftest import account, new_account
from tests.environments import environment

__all__ = ["account", "new_account"]

HERE = Path(__file__).parent
Ask = Callable[..., dict[str, Any]]


def outcomes_of(command: list[str], folder: Path) -> dict[str, str]:
    """What went wrong in each flow of a driver, "" where nothing did. Fails if the driver itself falls."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"flow"')]
    return {line["flow"]: line["error"] for line in lines}


@pytest.fixture(scope="package")
def edge(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EnginesEdge]:
    with engines_edge(running, tmp_path_factory.mktemp("engines")) as found:
        yield found


@pytest.fixture(scope="session")
def tiktoklive() -> Path:
    return environment(HERE / "tiktoklive.lock")


@pytest.fixture(scope="package")
def ask(tiktoklive: Path, edge: EnginesEdge) -> Iterator[Ask]:
    """Ask as a user of the library does: `ask(key, url)`."""
    process = subprocess.Popen(
        [str(tiktoklive), str(HERE / "tiktoklive_driver.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tiktoklive.parent,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout

    def asked(key: str, url: str = "", **more: Any) -> dict[str, Any]:
        case = {"server": edge.url, "key": key, "url": url, **more}
        requests.write(json.dumps(case) + "\n")
        requests.flush()
        answer: dict[str, Any] = json.loads(answers.readline())
        return answer

    yield asked
    requests.close()
    answers.close()
    process.wait(20)
