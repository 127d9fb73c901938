"""An Envoy of a test's own, rendered as every edge is, with what the test wants to be otherwise."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from deploy.envoy import render
from deploy.envoy.render import Edge, Endpoint
from deploy.local.edge import local_edge
from deploy.local.layout import HOST, envoy_binary
from tests.conformance.edge import free_port, started
from tests.conftest import Running

PATIENCE = 60.0


@dataclass(frozen=True)
class OwnEdge:
    """Where it is, and what it has logged."""

    port: int
    admin: int
    metrics: int
    log: Path

    @property
    def address(self) -> tuple[str, int]:
        return HOST, self.port

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def target(self) -> str:
        return f"{HOST}:{self.port}"

    def stat(self, name: str) -> int:
        """One of Envoy's own numbers; 0 before it is first counted."""
        asked = {"format": "json", "filter": f"^{name}$"}
        answer = httpx.get(f"http://{HOST}:{self.admin}/stats", params=asked)
        return sum(int(one["value"]) for one in answer.json()["stats"] if "value" in one)


def edge_of(running: Running, folder: Path, **changes: Any) -> Edge:
    """The running stack's edge on other ports, with changes of `Edge`'s fields and of its limits."""
    edge = local_edge(running.layout)
    limits = {name: changes.pop(name) for name in list(changes) if hasattr(edge.limits, name)}
    return replace(
        edge,
        listen=Endpoint(HOST, free_port()),
        admin=Endpoint(HOST, free_port()),
        metrics=Endpoint(HOST, free_port()),
        sds=folder,
        limits=replace(edge.limits, **limits),
        **changes,
    )


@contextmanager
def own_edge(
    edge: Edge,
    folder: Path,
    *,
    workers: int = 1,
    environment: Mapping[str, str] | None = None,
    ready: Collection[str] | None = None,
) -> Iterator[OwnEdge]:
    """It runs inside the block, and the instances of `ready` (None: of every service) are known to be."""
    render.write(edge, folder / "envoy.yaml")
    log = folder / "envoy.log"
    with ExitStack() as stack:
        command = [str(envoy_binary()), "--config-path", str(folder / "envoy.yaml"), "--disable-hot-restart"]
        options = ["--concurrency", str(workers), "--log-level", "warning"]
        options += ["--file-flush-interval-msec", "100"]
        started(stack, [*command, *options], log, dict(environment or {}))
        found = OwnEdge(edge.listen.port, edge.admin.port, edge.metrics.port, log)
        _wait(found, edge.grpc if ready is None else ready)
        yield found


def _wait(edge: OwnEdge, clusters: Collection[str]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if httpx.get(f"http://{HOST}:{edge.admin}/ready").text.strip() == "LIVE" and all(
                edge.stat(f"cluster.{name}.membership_healthy") for name in clusters
            ):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"the edge is not ready: {edge.log.read_text()[-2000:]}")
