"""A second signer of the running stack, with every engine, and an Envoy of its own in front of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx

from deploy.envoy import render
from deploy.envoy.render import Endpoint
from deploy.local.edge import local_edge
from deploy.local.layout import HOST, ROOT, envoy_binary
from tests.conftest import Running
from tests.integration.engines.standin import CALL, CHROMIUM, SCRIPT, sha256

PATIENCE = 60.0


@dataclass(frozen=True)
class EnginesEdge:
    """Where it is, and what it has logged."""

    url: str
    log: Path


@contextmanager
def engines_edge(running: Running, folder: Path) -> Iterator[EnginesEdge]:
    """Native (the default), websdk with the stand-in script, and upstream with a sign server of ours."""
    with ExitStack() as stack:
        upstream = stack.enter_context(sign_server())
        instance = running.layout.instances("signer")[0]
        ports = {name: free_port() for name in ("grpc", "http", "metrics", "edge", "admin", "edge_metrics")}
        names = running.layout.names(instance) | {
            name: f"{HOST}:{ports[name]}" for name in ("grpc", "http", "metrics")
        }
        settings = instance.service.environment(names, running.layout.secrets) | {
            "SIGNGATE_ENGINES": '["native", "websdk", "upstream"]',
            "SIGNGATE_WEBSDK_SCRIPT": str(SCRIPT),
            "SIGNGATE_WEBSDK_SCRIPT_SHA256": sha256(SCRIPT),
            "SIGNGATE_WEBSDK_FUNCTION": CALL.function,
            "SIGNGATE_WEBSDK_CHROMIUM": str(CHROMIUM),
            "SIGNGATE_WEBSDK_PAGES": "1",
            # Root can't use Chromium's sandbox, and tests may run as root.
            "SIGNGATE_WEBSDK_UNSAFE_NO_SANDBOX": "true",
            "SIGNGATE_UPSTREAMS": json.dumps([{"name": "ours", "url": upstream}]),
            "SIGNGATE_UPSTREAM_ALLOWED_HOSTS": json.dumps([HOST]),
            "SIGNGATE_UPSTREAM_KEYS": '{"ours": "upstream-secret-key"}',
        }
        log = folder / "signer.log"
        started(stack, [sys.executable, "-m", "services.signer"], log, settings)
        edge = local_edge(running.layout)
        edge = replace(
            edge,
            listen=Endpoint(HOST, ports["edge"]),
            admin=Endpoint(HOST, ports["admin"]),
            metrics=Endpoint(HOST, ports["edge_metrics"]),
            grpc=dict(edge.grpc) | {"signer": [Endpoint(HOST, ports["grpc"])]},
            http=dict(edge.http) | {"signer": [Endpoint(HOST, ports["http"])]},
        )
        configuration = folder / "envoy.yaml"
        configuration.write_text(render.render(edge), encoding="utf-8")
        command = [str(envoy_binary()), "--config-path", str(configuration), "--concurrency", "1"]
        started(
            stack, [*command, "--disable-hot-restart", "--log-level", "warning"], folder / "envoy.log", {}
        )
        found = EnginesEdge(f"http://{HOST}:{ports['edge']}", log)
        wait_until_ready(found)
        yield found


def wait_until_ready(edge: EnginesEdge) -> None:
    """All engines' canaries hold."""
    end = time.monotonic() + PATIENCE
    engines = []
    while time.monotonic() < end:
        try:
            engines = httpx.get(f"{edge.url}/v1/engines").json().get("engines", [])
        except httpx.HTTPError:
            engines = []
        if len(engines) == 3 and all(engine.get("ready") for engine in engines):
            return
        time.sleep(0.1)
    raise TimeoutError(f"not all engines are ready: {engines}; {edge.log.read_text()[-2000:]}")


def started(stack: ExitStack, command: list[str], log: Path, settings: dict[str, str]) -> None:
    """A process that ends with the stack."""
    output = stack.enter_context(log.open("w"))
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | settings, stdout=output, stderr=subprocess.STDOUT
    )

    def end() -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)


@contextmanager
def sign_server() -> Iterator[str]:
    """A small sign server that asks for a key and signs whatever it is given."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.headers["x-api-key"] != "upstream-secret-key":
                self.answer(401, {"code": 401, "message": "The key is not known here."})
                return
            url = f"{asked['url']}&msToken=theirs&X-Bogus=theirs"
            tokens = {"X-Bogus": "theirs", "msToken": "theirs"}
            response = {"signedUrl": url, "userAgent": asked.get("userAgent", "UA/up"), "tokens": tokens}
            self.answer(200, {"code": 200, "message": "ok", "response": response})

        def answer(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def free_port() -> int:
    with socket.create_server((HOST, 0)) as found:
        port: int = found.getsockname()[1]
    return port
