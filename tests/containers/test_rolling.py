"""Every service is replaced under load, and nobody notices."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from signgate_client import Signgate
from tests.chaos import system
from tests.chaos.system import User
from tests.containers.stack import SERVICES, Stack
from tests.containers.traffic import Traffic

pytestmark = pytest.mark.timeout(900)

FACES = {"Sign", "/v1/quota", "/v1/usage", "/webcast/rate_limits", "/v1/keys", "/auth/v1/user"}


def refused_by_edge(stack: Stack) -> str:
    """What the edge logged of requests that it could not forward."""
    told = stack.compose("logs", "--no-log-prefix", "envoy").splitlines()
    return "\n".join(line for line in told if '"flags":"' in line and '"flags":"-"' not in line)


async def test_no_request_fails_while_every_service_is_replaced(stack: Stack) -> None:
    email, password = f"roll-{uuid.uuid4().hex[:8]}@chaos.test", uuid.uuid4().hex
    user = await asyncio.to_thread(stack.sign_up, User(email.partition("@")[0]), password)
    await system.grant(Stack(stack.engine, [user]))
    with Signgate(stack.edge) as anyone:
        token = anyone.sign_in(email, password).access_token
    before = {service: stack.containers(service) for service in SERVICES}
    traffic = Traffic(stack.edge, user.key, token)
    running = asyncio.create_task(traffic.run())
    try:
        await asyncio.to_thread(stack.script, "roll.sh")
    finally:
        traffic.stop()
        await running
    assert traffic.failed == [], refused_by_edge(stack)
    assert traffic.answered.keys() == FACES
    assert min(traffic.answered.values()) > 100
    for service in SERVICES:
        after = stack.containers(service)
        assert len(after) == len(before[service])
        assert not set(after) & set(before[service])
    stack.drain(30)
    assert stack.reconcile() == []
