"""The call's context: whose word is believed, and what is there outside a call."""

import asyncio
import time
from uuid import UUID

import pytest

from servicekit import context
from servicekit.context import CallContext
from servicekit.errors import Unauthenticated
from servicekit.principal import Principal


def test_a_well_formed_id_of_the_caller_is_kept() -> None:
    assert CallContext("req-12345678").request_id == "req-12345678"


@pytest.mark.parametrize(
    "given", [None, "", "short", "x" * 65, "has space!", 'quote"quote', "line\nbreak", "-leading-dash"]
)
def test_any_other_id_is_replaced_by_one_uuid7(given: str | None) -> None:
    """It reaches logs and peers, so nothing that could forge a log line is taken over."""
    call = CallContext(given)
    assert UUID(call.request_id).version == 7
    assert call.request_id == call.request_id


def test_outside_a_call_there_is_nothing() -> None:
    assert context.current() is None
    assert context.request_id() == ""
    assert context.remaining() is None
    with pytest.raises(Unauthenticated):
        context.principal()


async def test_each_task_has_its_own_call() -> None:
    async def call(number: int) -> str:
        here = CallContext(f"request-{number}")
        here.principal = Principal(UUID(int=number))
        context.enter(here)
        await asyncio.sleep(0)
        assert context.principal().user_id == UUID(int=number)
        return context.request_id()

    answers = await asyncio.gather(*(asyncio.create_task(call(n)) for n in range(5)))
    assert answers == [f"request-{n}" for n in range(5)]
    assert context.current() is None


async def test_remaining_counts_down_from_the_deadline() -> None:
    async def call() -> float | None:
        context.enter(CallContext(deadline=time.monotonic() + 10))
        return context.remaining()

    left = await asyncio.create_task(call())
    assert left is not None
    assert 9 < left <= 10
