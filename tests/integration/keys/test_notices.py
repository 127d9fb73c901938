"""Each change of a key that its owner should hear of is told once, after it is committed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import UUID

import pytest

from servicekit.clock import SystemClock, SystemEntropy, SystemIds, uuid7
from servicekit.context import CallContext, enter, leave
from servicekit.errors import SigngateError
from servicekit.postgres import open_database
from servicekit.principal import Principal
from services.keys.derived import DerivedTokens, token_keyring
from services.keys.domain import Changes, Draft, Key
from services.keys.once import Repeatable
from services.keys.operators import KeyOperators
from services.keys.peppers import Keyring, Peppers
from services.keys.ports import KeyChange
from services.keys.service import KeysService, Minting
from services.keys.store import KeyStore
from tests.integration.keys.world import PEPPER_1, User, World

ADDRESS = "203.0.113.7"
ONCE = Repeatable("once", bytes(32))


class Told:
    """What owners would be told by mail."""

    def __init__(self) -> None:
        self.notices: list[tuple[KeyChange, UUID, list[UUID], str]] = []

    def key_changed(self, kind: KeyChange, user_id: UUID, keys: Sequence[Key], client_ip: str) -> None:
        assert all(key.user_id == user_id and key.name and key.masked for key in keys)
        self.notices.append((kind, user_id, [key.id for key in keys], client_ip))


class NoReplicas:
    async def invalidate(self, *key_ids: UUID) -> None:
        pass


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
async def store(world: World) -> AsyncIterator[KeyStore]:
    async with open_database(world.database.dsn("signgate_keys"), name="test") as database:
        yield KeyStore(database)


@pytest.fixture
def service(store: KeyStore, told: Told) -> KeysService:
    keyring, clock = Keyring.parse(f"1:{PEPPER_1}"), SystemClock()
    tokens = DerivedTokens(token_keyring(keyring), clock)
    minting = Minting(keyring, Peppers(keyring), tokens, clock, SystemIds(), SystemEntropy())
    return KeysService(store, NoReplicas(), minting, notices=told, engines={"native"}, key_limit=3)


@pytest.fixture
def caller(ann: User) -> Any:
    token = enter(CallContext(locate=lambda _metadata, _peer: ADDRESS))
    yield Principal(user_id=ann.id, session_id=uuid7())
    leave(token)


async def test_a_new_a_replaced_and_a_revoked_key_are_told_once(
    service: KeysService, told: Told, caller: Principal
) -> None:
    made = await service.create(caller, Draft("ci"), ONCE)
    assert (await service.create(caller, Draft("ci"), ONCE)).key.id == made.key.id
    turn = Repeatable("turn", bytes(32))
    rotated, _ = await service.rotate(caller, made.key.id, None, turn)
    await service.rotate(caller, made.key.id, None, turn)
    await service.update(caller, made.key.id, Changes(name="new"))
    await service.revoke(caller, made.key.id)
    await service.revoke(caller, made.key.id)
    by_key = Principal(user_id=caller.user_id, api_key_id=rotated.key.id)
    await service.revoke_self(by_key)
    user = caller.user_id
    assert told.notices == [
        ("created", user, [made.key.id], ADDRESS),
        ("rotated", user, [rotated.key.id], ADDRESS),
        ("revoked", user, [made.key.id], ADDRESS),
        ("revoked", user, [rotated.key.id], ADDRESS),
    ]


async def test_many_that_are_revoked_at_once_are_one_notice(
    service: KeysService, told: Told, caller: Principal
) -> None:
    made = {(await service.create(caller, Draft("ci"))).key.id for _ in range(3)}
    told.notices.clear()
    await service.revoke_all(caller, None)
    await service.revoke_all(caller, None)
    [(kind, user_id, ids, address)] = told.notices
    assert (kind, user_id, set(ids), address) == ("revoked", caller.user_id, made, ADDRESS)


async def test_an_operators_revocation_is_told_without_the_operators_address(
    service: KeysService, store: KeyStore, told: Told, caller: Principal
) -> None:
    operators = KeyOperators(store, NoReplicas(), told, SystemClock())
    operator = Principal(user_id=uuid7(), role="service_role")
    made = [(await service.create(caller, Draft("ci"))).key.id for _ in range(2)]
    told.notices.clear()
    for _ in range(2):
        await operators.revoke(operator, caller.user_id, made[0], "leaked")
        await operators.revoke_all(operator, caller.user_id, "leaked")
    assert told.notices == [
        ("revoked", caller.user_id, [made[0]], ""),
        ("revoked", caller.user_id, [made[1]], ""),
    ]


async def test_what_fails_is_not_told(service: KeysService, told: Told, caller: Principal) -> None:
    made = [await service.create(caller, Draft("ci")) for _ in range(3)]
    await service.rotate(caller, made[0].key.id, None)
    told.notices.clear()
    for attempt in (
        service.create(caller, Draft("one too many")),
        service.create(caller, Draft("")),
        service.rotate(caller, made[0].key.id, None),
        service.revoke(caller, uuid7()),
        service.revoke_all(caller, uuid7()),
    ):
        with pytest.raises(SigngateError):
            await attempt
    assert told.notices == []
