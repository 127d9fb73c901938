"""SignBatch's rules: one charge, a result for each URL, partial grants said clearly."""

from __future__ import annotations

import asyncio

import pytest

from servicekit.errors import PermissionDenied, Unauthenticated
from services.signer.errors import EngineFailure
from services.signer.jobs import Job, Refund, Wish
from services.signer.ports import LeaseLost
from tests.unit.signer_service.world import World


def reasons(job: Job) -> list[str]:
    return ["" if part.error is None else part.error.reason for part in job.parts]


async def test_a_batch_is_one_charge_whose_events_share_it(world: World) -> None:
    secret, _ = world.key()
    job = await world.sign_batch(secret, "@aa", "@bb", "@cc")
    assert reasons(job) == ["", "", ""]
    ((charge,),) = world.quota.lists
    assert (charge.cost, charge.partial) == (3, True)
    assert {event.charge_id for event in world.events.all} == {charge.charge_id}
    assert len({event.id for event in world.events.all}) == 3
    assert len(world.events.entries) == 1


async def test_only_the_well_formed_are_charged(world: World) -> None:
    secret, _ = world.key()
    job = await world.sign_batch(secret, "@aa", "bad", "@cc", Wish("@dd", engine="no-such"))
    assert reasons(job) == ["", "ROOM_URL_UNRECOGNISED", "", "ENGINE_UNKNOWN"]
    assert world.quota.lists[0][0].cost == 2
    assert [(event.success, event.charged) for event in world.events.all] == [
        (True, 1),
        (False, 0),
        (True, 1),
        (False, 0),
    ]


async def test_a_partial_grant_signs_the_first_well_formed_ones(world: World) -> None:
    secret, caller = world.key()
    world.quota.left[caller.user_id] = 2
    job = await world.sign_batch(secret, "@aa", "bad", "@bb", "@cc", "@dd")
    assert reasons(job) == ["", "ROOM_URL_UNRECOGNISED", "", "QUOTA_EXHAUSTED", "QUOTA_EXHAUSTED"]
    assert [event.charged for event in world.events.all] == [1, 0, 1, 0, 0]
    assert world.quota.refunded == []
    assert job.limit is not None
    assert job.limit.remaining == 0


async def test_what_an_engine_fails_is_refunded_once_for_the_batch(world: World) -> None:
    secret, caller = world.key(engine="broken")
    world.broken.fails.update({"bb": EngineFailure(), "dd": EngineFailure()})
    job = await world.sign_batch(secret, "@aa", "@bb", "@cc", "@dd")
    assert reasons(job) == ["", "ENGINE_FAILURE", "", "ENGINE_FAILURE"]
    assert world.quota.refunded == [Refund(job.charge_id, caller.user_id, 2)]
    assert [event.charge_id for event in world.events.all] == [job.charge_id, "", job.charge_id, ""]


async def test_a_lost_lease_fails_every_signature_of_the_batch(world: World) -> None:
    world.events.fails_fenced = LeaseLost(retry_after=1.0)
    secret, caller = world.key()
    job = await world.sign_batch(secret, "@aa", "bad", "@cc")
    assert reasons(job) == ["LEASE_LOST", "ROOM_URL_UNRECOGNISED", "LEASE_LOST"]
    assert all(part.signed is None for part in job.parts)
    assert world.quota.refunded == [Refund(job.charge_id, caller.user_id, 2)]
    assert [event.error_reason for event in world.events.all] == reasons(job)


async def test_a_bad_credential_fails_the_batch_as_a_whole(world: World) -> None:
    with pytest.raises(Unauthenticated):
        await world.sign_batch(world.refused_key("KEY_REVOKED", "user", "key"), "@aa", "@bb")
    assert [event.error_reason for event in world.events.all] == ["KEY_REVOKED"] * 2
    secret, _ = world.key(scopes=frozenset())
    with pytest.raises(PermissionDenied):
        await world.sign_batch(secret, "@aa", "@bb")


async def test_batches_do_not_hold_up_single_requests(world: World) -> None:
    """Each kind has a list of its own in flight."""
    slow, _ = world.key(engine="broken")
    quick, _ = world.key()
    world.broken.gate = asyncio.Event()
    batch = asyncio.ensure_future(world.sign_batch(slow, "@aa", "@bb"))
    await asyncio.sleep(0.01)
    assert (await world.sign(quick)).signed is not None
    assert not batch.done()
    world.broken.gate.set()
    await batch
