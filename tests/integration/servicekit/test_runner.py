"""A process from start to stop: order, draining, and no zombie."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from servicekit.config import Address, ServiceSettings
from servicekit.errors import Unavailable
from servicekit.rpc import create_server
from servicekit.runner import Runtime, StartupError, running
from servicekit.runner import _runs as runs
from servicekit.testing.identity import Identities, shared
from servicekit.testing.network import free_port
from signgate.keys.v1 import validation_pb2 as pb
from signgate.keys.v1 import validation_pb2_grpc

PROGRAM = Path(__file__).with_name("process.py")


class Process:
    """The example service, its journal, and what it logged."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.port, self.http, self.metrics = free_port(), free_port(), free_port()
        self.journal_file = directory / "journal"
        self.log_file = directory / "log"
        self.log = self.log_file.open("wb")
        self.identities = Identities(directory)
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "SIGNGATE_GRPC_LISTEN": f"127.0.0.1:{self.port}",
                "SIGNGATE_METRICS_LISTEN": f"127.0.0.1:{self.metrics}",
                "SIGNGATE_STARTUP_TIMEOUT": "30",
                "HTTP_PORT": str(self.http),
                "JOURNAL": str(self.journal_file),
                "SERVICE_KEYS": str(self.identities.public),
                **environment,
            },
        )

    def journal(self) -> list[str]:
        return self.journal_file.read_text().splitlines() if self.journal_file.exists() else []

    def logged(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log_file.read_text().splitlines()]

    def wait_for(self, what: Callable[[], bool], seconds: float = 20) -> None:
        give_up = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < give_up, (self.journal(), self.log_file.read_text())
            time.sleep(0.02)

    def ready(self) -> None:
        self.wait_for(lambda: any(line["event"] == "ready" for line in self.logged()))

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    with ExitStack() as stack:

        def begin(**environment: str) -> Process:
            process = Process(tmp_path, **environment)
            stack.callback(process.end)
            return process

        yield begin


def call(process: Process) -> tuple[grpc.Channel, grpc.Future[pb.ValidateKeysResponse]]:
    channel = grpc.insecure_channel(f"127.0.0.1:{process.port}")
    stub = validation_pb2_grpc.KeyValidationServiceStub(channel)
    credential = process.identities.identity("signer").pair("keys")
    return channel, stub.ValidateKeys.future(pb.ValidateKeysRequest(), timeout=10, metadata=(credential,))


@pytest.mark.parametrize("event_loop", ["uvloop", "asyncio"])
def test_a_stop_signal_drains_and_closes_in_reverse_order(
    start: Callable[..., Process], event_loop: str
) -> None:
    process = start(SIGNGATE_EVENT_LOOP=event_loop)
    process.ready()
    channel, answer = call(process)
    process.wait_for(lambda: "call begins" in process.journal())
    process.process.send_signal(signal.SIGTERM)
    assert answer.result() == pb.ValidateKeysResponse()
    assert process.process.wait(20) == 0
    channel.close()
    assert process.journal() == [
        "open pool",
        "open dependency",
        "loop begins",
        "composed",
        "call begins",
        "call ends",
        "loop ends",
        "close dependency",
        "close pool",
    ]
    events = [line["event"] for line in process.logged()]
    assert events.count("waiting for a dependency") == 2
    assert events[-1] == "stopped"


def test_a_call_that_comes_while_draining_is_refused_as_unavailable(start: Callable[..., Process]) -> None:
    process = start(CALL_SECONDS="3")
    process.ready()
    channel, answer = call(process)
    process.wait_for(lambda: "call begins" in process.journal())
    process.process.send_signal(signal.SIGTERM)
    process.wait_for(lambda: any(line["event"] == "draining" for line in process.logged()))
    time.sleep(0.1)
    late_channel, late = call(process)
    with pytest.raises(grpc.RpcError) as caught:
        late.result()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert answer.result() == pb.ValidateKeysResponse()
    channel.close()
    late_channel.close()


def test_an_http_request_in_flight_is_answered(start: Callable[..., Process]) -> None:
    process = start()
    process.ready()
    with socket.create_connection(("127.0.0.1", process.http)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        process.wait_for(lambda: "http begins" in process.journal())
        process.process.send_signal(signal.SIGTERM)
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"done")
    assert process.process.wait(20) == 0


def test_in_the_lame_duck_each_connections_next_answer_is_its_last(start: Callable[..., Process]) -> None:
    process = start(SIGNGATE_LAME_DUCK="4")
    process.ready()

    def health() -> int:
        with closing(HTTPConnection("127.0.0.1", process.http)) as asking:
            asking.request("GET", "/healthz")
            return asking.getresponse().status

    assert health() == 200
    with closing(HTTPConnection("127.0.0.1", process.http)) as kept:
        for last in (False, True):
            if last:
                process.process.send_signal(signal.SIGTERM)
                process.wait_for(lambda: health() == 503)
            kept.request("GET", "/")
            answer = kept.getresponse()
            assert (answer.status, answer.read()) == (200, b"done")
            assert answer.headers["connection"] == ("close" if last else None)
    assert process.process.wait(20) == 0


def test_a_background_task_that_dies_brings_the_process_down(start: Callable[..., Process]) -> None:
    process = start(MODE="loop-dies")
    assert process.process.wait(20) == 1
    (line,) = [line for line in process.logged() if line["event"] == "a background task died"]
    assert "the loop broke" in str(line["exception"])
    assert process.journal()[-1] == "close pool"


def test_a_dependency_that_never_comes_ends_the_start_with_a_reason(start: Callable[..., Process]) -> None:
    process = start(MODE="no-dependency", SIGNGATE_STARTUP_TIMEOUT="0.5")
    assert process.process.wait(20) == 1
    (line,) = [line for line in process.logged() if line["event"] == "giving up"]
    assert "dependency did not come up" in str(line["cause"])
    assert process.journal() == ["open pool", "close pool"]


def test_a_signal_while_starting_ends_the_start(start: Callable[..., Process]) -> None:
    process = start(MODE="no-dependency", SIGNGATE_STARTUP_TIMEOUT="60")
    process.wait_for(lambda: any(line["event"] == "waiting for a dependency" for line in process.logged()))
    process.process.send_signal(signal.SIGINT)
    assert process.process.wait(20) == 0
    assert process.journal() == ["open pool", "close pool"]


def test_a_second_signal_does_not_wait(start: Callable[..., Process]) -> None:
    process = start(CALL_SECONDS="5")
    process.ready()
    channel, answer = call(process)
    process.wait_for(lambda: "call begins" in process.journal())
    process.process.send_signal(signal.SIGTERM)
    process.wait_for(lambda: any(line["event"] == "draining" for line in process.logged()))
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(20) == 1
    assert "call ends" not in process.journal()
    with pytest.raises(grpc.RpcError):
        answer.result()
    channel.close()


def test_wrong_settings_are_listed_and_nothing_starts(start: Callable[..., Process]) -> None:
    process = start(SIGNGATE_GRPC_LISTEN="nonsense")
    assert process.process.wait(20) == 78
    assert "SIGNGATE_GRPC_LISTEN" in process.log_file.read_text()
    assert process.journal() == []


def test_a_taken_port_is_said_plainly(start: Callable[..., Process]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start(SIGNGATE_GRPC_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}")
        assert process.process.wait(20) == 1
    assert process.journal()[-1] == "close pool"


def test_a_kubelet_is_told_of_life_and_readiness_at_the_metrics_port(start: Callable[..., Process]) -> None:
    """Its probes by gRPC know no TLS."""
    process = start(SIGNGATE_LAME_DUCK="60")
    process.ready()

    def told(path: str) -> int:
        with closing(HTTPConnection("127.0.0.1", process.metrics, timeout=30)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status

    assert told("/livez") == 200
    assert told("/readyz") == 200
    process.process.send_signal(signal.SIGTERM)
    process.wait_for(lambda: told("/readyz") == 503)
    assert told("/livez") == 200, "it serves on until callers have left"


async def test_a_loop_that_hangs_is_not_alive() -> None:
    loop = asyncio.get_running_loop()
    hangs = threading.Thread(target=lambda: answers.append(runs(loop)))
    answers: list[bool] = []
    hangs.start()
    hangs.join()  # the loop waits here, longer than a probe does
    assert answers == [False]
    assert await asyncio.to_thread(runs, loop)


def test_metrics_are_served(start: Callable[..., Process]) -> None:
    process = start()
    process.ready()
    with urllib.request.urlopen(f"http://127.0.0.1:{process.metrics}/metrics") as page:
        text = page.read().decode()
    assert 'signgate_build_info{service="example"' in text
    assert "signgate_rpc_duration_seconds_bucket" in text


async def test_readiness_follows_its_conditions() -> None:
    broken = False

    async def condition() -> None:
        if broken:
            raise Unavailable

    class Servicer(validation_pb2_grpc.KeyValidationServiceServicer):
        async def ValidateKeys(self, request: object, context: object) -> pb.ValidateKeysResponse:
            return pb.ValidateKeysResponse()

    async def compose(runtime: Runtime) -> None:
        server = create_server(callers=shared().callers("keys"))
        server.add(Servicer(), validation_pb2_grpc.add_KeyValidationServiceServicer_to_server)
        runtime.readiness("condition", condition)
        await runtime.serve(server, Address("127.0.0.1", 0))

    settings = ServiceSettings(grpc_listen=Address("127.0.0.1", 0))
    async with (
        running("t", settings, compose) as runtime,
        grpc.aio.insecure_channel(str(runtime.grpc_address)) as channel,
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        broken = True
        assert not await runtime.check()
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        broken = False
        assert await runtime.check()
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING


async def test_what_was_opened_is_closed_when_composing_fails() -> None:
    closed: list[str] = []

    async def close() -> None:
        closed.append("pool")

    async def compose(runtime: Runtime) -> None:
        runtime.stack.push_async_callback(close)
        await runtime.connect("peer", partial(never, ConnectionRefusedError("no")))

    settings = ServiceSettings(grpc_listen=Address("127.0.0.1", 0), startup_timeout=0.0)
    with pytest.raises(StartupError, match="peer did not come up"):
        async with running("t", settings, compose):
            pytest.fail("it can't have started")
    assert closed == ["pool"]
    assert len(asyncio.all_tasks()) == 1


class never:  # noqa: N801  # a context manager that never opens
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def __aenter__(self) -> None:
        raise self._error

    async def __aexit__(self, *_: object) -> None:
        raise AssertionError
