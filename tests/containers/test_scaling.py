"""More instances by `--scale`: whoever balances finds them, and work reaches them."""

from __future__ import annotations

import re
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.settings import table
from signgate_client import Signgate
from tests.chaos.system import User
from tests.containers.stack import Stack

pytestmark = pytest.mark.timeout(900)

WORK = {
    "signer": r'signgate_rpc_duration_seconds_count\{.*SignerService/Sign".*\} ',
    "keys": r'signgate_rpc_duration_seconds_count\{.*ValidateKeys".*\} ',
    "quota": r'signgate_rpc_duration_seconds_count\{.*/Consume".*\} ',
    "logger": r"signgate_usage_rows_committed_total ",
}
"""What an instance has done, among its metrics. The signer's work comes by the edge, the keys' and quota's
from the signer, the logger's from the stream."""
FOUND = 90.0
"""Seconds. A connection lives thirty, and the next one finds new instances."""


@contextmanager
def signing(stack: Stack, user: User) -> Iterator[None]:
    """A little load: half of what a key may sign a minute."""
    stop = threading.Event()

    def sign() -> None:
        with Signgate(stack.edge, api_key=user.key) as caller:
            while not stop.wait(0.2):
                caller.sign("@scaled")

    thread = threading.Thread(target=sign)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def done(stack: Stack, service: str, container: str) -> float:
    """How much of its work an instance has done."""
    port = table().services[service].ports["metrics"]
    with urllib.request.urlopen(f"http://{stack.address(container)}:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(WORK[service], line))


def test_new_instances_are_found_and_get_work(stack: Stack) -> None:
    user = stack.sign_up(User(f"scale-{uuid.uuid4().hex[:8]}"))
    before = {service: set(stack.containers(service)) for service in WORK}
    with signing(stack, user):
        stack.up("--no-recreate", *(f"--scale={service}=2" for service in WORK))
        idle = {
            (service, container)
            for service in WORK
            for container in set(stack.containers(service)) - before[service]
        }
        assert len(idle) == len(WORK)
        end = time.monotonic() + FOUND
        while idle:
            assert time.monotonic() < end, f"these get no work: {idle}"
            time.sleep(0.5)
            idle = {one for one in idle if not done(stack, *one)}
    stack.up("--no-recreate", *(f"--scale={service}=1" for service in WORK))
    assert all(len(stack.containers(service)) == 1 for service in WORK)
    assert stack.reconcile() == []
