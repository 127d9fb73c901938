"""Memory of the services, idle and after load; and the time from `make up` to the first signature."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

import grpc

from bench.figures import Results
from bench.processes import peak, resident
from bench.progress import Say
from bench.scenarios.contenders import Contender, room
from bench.world import World
from deploy.local.layout import ROOT
from signgate.signer.v1 import signer_pb2 as pb
from signgate.signer.v1 import signer_pb2_grpc

PIECE = 20_000
WARM = 20_000
"""Requests before growth is looked at: whatever is filled once is full."""


def idle(world: World, results: Results, say: Say) -> None:
    """Right after a start: the largest service, and every service in the details."""
    found = {name: resident(pid) for name, pid in world.service_pids().items()}
    results.add("idle_memory_mb", [max(found.values())])
    results.details["idle_memory_mb"] = {name: round(value, 1) for name, value in found.items()}
    say(f"idle: {', '.join(f'{name} {value:.0f} MB' for name, value in found.items())}")


def growth(world: World, contender: Contender, requests: int, results: Results, say: Say) -> None:
    """How much the worst service grew from its warmed state over so many requests."""
    _sent(contender, WARM)
    before = {name: resident(pid) for name, pid in world.service_pids().items()}
    _sent(contender, requests)
    after = {name: resident(pid) for name, pid in world.service_pids().items()}
    grown = {name: (after[name] / before[name] - 1) * 100 for name in before}
    results.add("memory_growth_percent", [max(grown.values())])
    results.details["memory"] = {
        name: {
            "before_mb": round(before[name], 1),
            "after_mb": round(after[name], 1),
            "peak_mb": round(peak(pid), 1),
        }
        for name, pid in world.service_pids().items()
    }
    results.details["memory_requests"] = requests
    say(
        f"after {requests:,} requests: "
        + ", ".join(f"{name} {value:+.1f} %" for name, value in grown.items())
    )


def _sent(contender: Contender, requests: int) -> None:
    """In pieces: a server ends a connection after half a minute, and h2load makes no second one."""
    for first in range(0, requests, PIECE):
        contender.run(min(PIECE, requests - first))


def up(world: World, rounds: int, results: Results, say: Say) -> None:
    """`make up`'s own command on a stack that was stopped, until a signature comes through the edge."""
    key = world.accounts[0].secret
    found = []
    settings = world.environment()
    for number in range(rounds):
        world.stack.down()
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "deploy.local", "up"],
            cwd=ROOT,
            env=settings,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with grpc.insecure_channel(world.edge) as channel:
            signer_pb2_grpc.SignerServiceStub(channel).Sign(
                pb.SignRequest(room_url=room(0)), metadata=(("x-api-key", key),), timeout=10
            )
        found.append(time.monotonic() - began)
        say(f"round {number + 1} of {rounds}: up and signed after {found[-1]:.1f} s")
    results.add("up_seconds", found)
    say(f"median {median(found):.1f} s")
