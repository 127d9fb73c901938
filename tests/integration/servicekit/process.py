"""A small service as a process of its own, for the tests of the runner. `MODE` says how it behaves."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from servicekit.config import Address, ServiceSettings, load
from servicekit.rpc import create_server
from servicekit.rpc.callers import Callers
from servicekit.runner import Runtime, run
from signgate.keys.v1 import validation_pb2 as pb
from signgate.keys.v1 import validation_pb2_grpc

MODE = os.environ.get("MODE", "")
JOURNAL = Path(os.environ["JOURNAL"])


def note(what: str) -> None:
    with JOURNAL.open("a") as journal:
        journal.write(what + "\n")


class Servicer(validation_pb2_grpc.KeyValidationServiceServicer):
    async def ValidateKeys(self, request: Any, context: Any) -> Any:
        note("call begins")
        await asyncio.sleep(float(os.environ.get("CALL_SECONDS", "0.6")))
        note("call ends")
        return pb.ValidateKeysResponse()


@asynccontextmanager
async def resource(name: str) -> AsyncIterator[str]:
    note(f"open {name}")
    try:
        yield name
    finally:
        note(f"close {name}")


tries = count(1)


@asynccontextmanager
async def flaky() -> AsyncIterator[str]:
    if MODE == "no-dependency" or next(tries) < 3:
        raise ConnectionRefusedError("not yet")
    async with resource("dependency") as opened:
        yield opened


async def loop() -> None:
    note("loop begins")
    try:
        if MODE == "loop-dies":
            await asyncio.sleep(0.3)
            raise RuntimeError("the loop broke")
        await asyncio.Event().wait()
    finally:
        note("loop ends")


async def slow(request: Request) -> PlainTextResponse:
    note("http begins")
    await asyncio.sleep(0.6)
    note("http ends")
    return PlainTextResponse("done")


async def compose(runtime: Runtime) -> None:
    await runtime.enter(resource("pool"))
    await runtime.connect("dependency", flaky)
    runtime.background("loop", loop())
    server = create_server(callers=Callers("keys", Path(os.environ["SERVICE_KEYS"])))
    server.add(Servicer(), validation_pb2_grpc.add_KeyValidationServiceServicer_to_server)
    await runtime.serve(server, runtime.settings.grpc_listen)
    if http := os.environ.get("HTTP_PORT"):
        await runtime.serve_http(Starlette(routes=[Route("/", slow)]), Address("127.0.0.1", int(http)))
    note("composed")


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    run("example", load(ServiceSettings), compose)
