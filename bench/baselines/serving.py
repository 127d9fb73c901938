"""How the gRPC baselines serve: as Signgate's own servers do, less everything that is Signgate's."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from grpc.aio import ServicerContext

from servicekit.rpc.server import SERVER_OPTIONS
from servicekit.runner import loop_factory
from signgate.signer.v1 import signer_pb2 as pb

Sign = Callable[[pb.SignRequest, ServicerContext[Any, Any]], Awaitable[pb.SignResponse]]


def new_loop() -> Any:
    """The event loop that the services use."""
    factory = loop_factory()
    return None if factory is None else factory()


async def serve(sign: Sign, port: int) -> None:
    """Serve `Sign`, for ever."""
    handler = grpc.unary_unary_rpc_method_handler(
        sign,
        request_deserializer=pb.SignRequest.FromString,
        response_serializer=pb.SignResponse.SerializeToString,
    )
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("signgate.signer.v1.SignerService", {"Sign": handler}),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    # As the services do: the collector would look at everything again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    await server.wait_for_termination()


@contextmanager
def running(
    module: str, port: int, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A baseline in a process of its own, answering inside the block."""
    command: Sequence[str] = [sys.executable, "-m", f"bench.baselines.{module}", str(port), *arguments]
    with subprocess.Popen(command, env=os.environ | dict(environment or {})) as process:
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                grpc.channel_ready_future(channel).result(timeout=20)
            time.sleep(0.2)
            yield process
        finally:
            process.terminate()
