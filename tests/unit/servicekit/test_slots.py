"""No owner can hold so much of a shared resource that there is none for another."""

from __future__ import annotations

import pytest

from servicekit.errors import ResourceExhausted
from servicekit.slots import Shares, Slots


def test_one_owner_gets_its_limit_and_another_still_finds_a_slot() -> None:
    slots = Slots(3, 2, reason="STREAM_LIMIT", by="user", retry_after=5.0)
    slots.take("greedy")
    slots.take("greedy")
    with pytest.raises(ResourceExhausted) as refused:
        slots.take("greedy")
    assert (refused.value.reason, refused.value.retry_after) == ("STREAM_LIMIT", 5.0)
    assert refused.value.metadata == {"limit": "user", "limit_value": "2"}
    slots.take("other")
    with pytest.raises(ResourceExhausted) as refused:
        slots.take("third")
    assert refused.value.metadata["limit"] == "process"


def test_a_slot_is_given_back_however_its_block_ends() -> None:
    slots = Slots(1, 1)
    for _ in range(3):
        with pytest.raises(KeyError), slots.taken("owner"):
            raise KeyError
    assert slots.total == 0
    with slots.taken("owner"), pytest.raises(ResourceExhausted), slots.taken("owner"):
        raise AssertionError("a second slot")
    assert slots.held_by("owner") == 0


def test_a_refused_owner_leaves_nothing_behind() -> None:
    slots = Slots(1, 1)
    with slots.taken("first"):
        for number in range(100):
            with pytest.raises(ResourceExhausted):
                slots.take(f"stranger {number}")
    assert slots._held == {}


@pytest.mark.parametrize("greedy", [1, 2, 10, 60])
def test_greedy_owners_leave_room_for_one_more(greedy: int) -> None:
    shares = Shares(128)
    for _ in range(128):
        for owner in range(greedy):
            if shares.has_room(str(owner)):
                shares.take(str(owner))
    held = [shares.held_by(str(owner)) for owner in range(greedy)]
    assert max(held) - min(held) <= 1
    assert shares.has_room("victim")
    assert sum(held) >= 128 * greedy // (greedy + 2)


def test_a_whole_list_finds_room_when_all_is_free() -> None:
    shares = Shares(64)
    assert shares.has_room("bulk", 64)
    assert not shares.has_room("bulk", 65)
    shares.take("bulk", 64)
    assert not shares.has_room("other")
    shares.give_back("bulk", 64)
    assert (shares.free, shares.held_by("bulk")) == (64, 0)


def test_limits_that_let_in_none_are_refused_at_start() -> None:
    for limits in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least"):
            Slots(*limits)
    with pytest.raises(ValueError, match="at least"):
        Shares(0)
