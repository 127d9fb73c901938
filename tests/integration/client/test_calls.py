"""What the client's channels do by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from signgate.keys.v1 import keys_pb2
from signgate_client import Signgate, SigngateError


class Flaky(grpc.GenericRpcHandler):
    """Every method is unavailable twice, then answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.asked.append(name)
            if self.asked.count(name) < 3:
                context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


@pytest.fixture
def flaky() -> Iterator[tuple[Flaky, Signgate]]:
    handler = Flaky()
    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Signgate(f"127.0.0.1:{port}") as client:
        yield handler, client
    server.stop(None)


def test_what_only_reads_is_tried_again(flaky: tuple[Flaky, Signgate]) -> None:
    handler, client = flaky
    assert not client.call(client.keys.ListKeys, keys_pb2.ListKeysRequest()).keys
    assert handler.asked == ["ListKeys"] * 3


def test_what_changes_something_is_asked_once(flaky: tuple[Flaky, Signgate]) -> None:
    handler, client = flaky
    for attempt in (lambda: client.create_key("x"), lambda: client.sign("@x")):
        with pytest.raises(SigngateError) as failed:
            attempt()
        assert failed.value.code is grpc.StatusCode.UNAVAILABLE
    assert handler.asked == ["CreateKey", "Sign"]
