"""Passkeys as second factors, over gRPC and HTTP."""

from __future__ import annotations

import asyncio
from typing import Any, get_args
from uuid import UUID

import pytest

from servicekit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, Unauthenticated
from signgate.auth.v1 import admin_pb2, auth_pb2
from tests.authenticator import Algorithm, Authenticator
from tests.integration.auth.passkeys import ORIGIN, enroll_key
from tests.integration.auth.test_http import code_of, get, post, session
from tests.integration.auth.test_mfa import enroll
from tests.integration.auth.world import World, bearer, claims


async def actions(world: World, user_id: str) -> list[tuple[str, str]]:
    rows = await world.sql.fetch(
        "SELECT action, coalesce(details->>'why', '') AS why FROM auth.audit_log WHERE user_id = $1::uuid",
        user_id,
    )
    return [(row["action"], row["why"]) for row in rows]


@pytest.mark.parametrize("algorithm", get_args(Algorithm))
async def test_a_passkey_protects_the_account_as_an_app_does(world: World, algorithm: Algorithm) -> None:
    """The first proof ends other sessions and gives recovery codes; each later sign-in asks for it."""
    owner = await world.user()
    elsewhere = await world.sign_in(owner.user.email)
    key = await enroll_key(world, owner, algorithm=algorithm)
    asked = await key.challenge(owner)
    assert (asked.factor_type, asked.ceremony) == ("webauthn", auth_pb2.CEREMONY_CREATE)
    proved = await key.prove(owner, asked)
    assert claims(proved.session)["aal"] == "aal2"
    assert claims(proved.session)["amr"][0]["method"] == "webauthn"
    assert len(set(proved.recovery_codes)) == 10
    (factor,) = proved.session.user.factors
    assert factor.factor_type == "webauthn"
    with pytest.raises(Unauthenticated):
        await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(elsewhere))

    later = await world.sign_in(owner.user.email)
    with pytest.raises(Unauthenticated) as refused:
        await world.rpc.UpdateUser(
            auth_pb2.UpdateUserRequest(password="the thief's password"), metadata=bearer(later)
        )
    assert refused.value.reason == "INSUFFICIENT_AAL"
    asked = await key.challenge(later)
    assert asked.ceremony == auth_pb2.CEREMONY_REQUEST
    raised = await key.prove(later, asked)
    assert claims(raised.session)["aal"] == "aal2"
    assert not raised.recovery_codes
    assert claims(await world.refresh(raised.session.refresh_token))["aal"] == "aal2"


async def test_a_challenge_takes_one_answer(world: World) -> None:
    """Right or wrong, also several at once."""
    owner = await world.user()
    key = await enroll_key(world, owner)
    await key.prove(owner)
    asked = await key.challenge(owner)
    outcomes = await asyncio.gather(*(key.prove(owner, asked) for _ in range(4)), return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    asked = await key.challenge(owner)
    for reason in ("MFA_VERIFICATION_FAILED", "MFA_CHALLENGE_EXPIRED"):
        with pytest.raises(InvalidArgument) as refused:
            await key.prove(owner, asked, signature=b"wrong")
        assert refused.value.reason == reason
    with pytest.raises(InvalidArgument) as over:
        await key.prove(owner, asked)
    assert over.value.reason == "MFA_CHALLENGE_EXPIRED"


async def test_a_challenge_ends(world: World) -> None:
    owner = await world.user()
    key = await enroll_key(world, owner)
    asked = await key.challenge(owner)
    await world.sql.execute(
        "UPDATE auth.mfa_challenges SET expires_at = now() WHERE id = $1::uuid", asked.challenge_id
    )
    with pytest.raises(InvalidArgument) as over:
        await key.prove(owner, asked)
    assert over.value.reason == "MFA_CHALLENGE_EXPIRED"


async def test_a_challenge_is_for_one_factor_and_one_ceremony(world: World) -> None:
    owner = await world.user()
    one = await enroll_key(world, owner, "one")
    raised = (await one.prove(owner)).session
    other = await enroll_key(world, raised, "other")
    await other.prove(raised)
    asked = await one.challenge(raised)
    with pytest.raises(InvalidArgument) as refused:
        await other.prove(raised, asked)
    assert refused.value.reason == "MFA_CHALLENGE_EXPIRED"
    with pytest.raises(InvalidArgument) as refused:
        await one.prove(raised, asked, ceremony=auth_pb2.CEREMONY_CREATE)
    assert refused.value.reason == "VALIDATION_FAILED"


async def test_a_code_is_no_answer_to_a_passkey_nor_a_passkey_to_an_app(world: World) -> None:
    owner = await world.user()
    phone = await enroll(world, owner)
    raised = (await phone.prove(owner, phone.code())).session
    key = await enroll_key(world, raised)
    await key.prove(raised)
    asked = await key.challenge(raised)
    with pytest.raises(InvalidArgument) as refused:
        await world.rpc.VerifyFactor(
            auth_pb2.VerifyFactorRequest(
                factor_id=key.factor_id, challenge_id=asked.challenge_id, code=phone.code(1)
            ),
            metadata=bearer(raised),
        )
    assert refused.value.reason == "VALIDATION_FAILED"
    with pytest.raises(InvalidArgument) as refused:
        await world.rpc.VerifyFactor(
            auth_pb2.VerifyFactorRequest(
                factor_id=phone.factor_id,
                challenge_id=await phone.challenge(raised),
                passkey=key.answer(asked),
            ),
            metadata=bearer(raised),
        )
    assert refused.value.reason == "VALIDATION_FAILED"


async def test_an_enrolment_left_open_is_not_for_who_has_one_factor(world: World) -> None:
    """Anyone's authenticator could answer it: a protected account's asks for aal2 until it is created."""
    owner = await world.user()
    phone = await enroll(world, owner)
    raised = (await phone.prove(owner, phone.code())).session
    key = await enroll_key(world, raised)
    asked = await key.challenge(raised)
    thief = await world.sign_in(owner.user.email)
    with pytest.raises(Unauthenticated) as refused:
        await key.challenge(thief)
    assert refused.value.reason == "INSUFFICIENT_AAL"
    with pytest.raises(Unauthenticated) as refused:
        await key.prove(thief, asked)
    assert refused.value.reason == "INSUFFICIENT_AAL"
    assert claims(await world.refresh(thief.refresh_token))["aal"] == "aal1"
    assert claims((await key.prove(raised, asked)).session)["aal"] == "aal2"


async def test_a_passkey_is_created_by_a_fresh_sign_in_only(world: World) -> None:
    """As its enrolment: a session that was stolen long ago makes itself no second factor."""
    owner = await world.user()
    key = await enroll_key(world, owner)
    asked = await key.challenge(owner)
    long_ago = (
        "UPDATE auth.sessions SET amr = jsonb_set(amr, '{0,timestamp}', to_jsonb($2::bigint))"
        " WHERE user_id = $1"
    )
    await world.sql.execute(long_ago, UUID(owner.user.id), claims(owner)["amr"][0]["timestamp"] - 3601)
    for attempt in (lambda: key.challenge(owner), lambda: key.prove(owner, asked)):
        with pytest.raises(Unauthenticated) as refused:
            await attempt()
        assert refused.value.reason == "REAUTHENTICATION_NEEDED"


async def test_a_counter_that_goes_back_is_refused_and_noted(world: World) -> None:
    owner = await world.user()
    key = await enroll_key(world, owner)
    await key.prove(owner)
    await key.prove(owner)
    key.device.count = 1
    with pytest.raises(InvalidArgument) as refused:
        await key.prove(owner)
    assert refused.value.reason == "MFA_VERIFICATION_FAILED"
    assert "may be a copy" in str(refused.value)
    assert ("factor_failed", "passkey_counter") in await actions(world, owner.user.id)
    key.device.count = 7
    assert claims((await key.prove(owner)).session)["aal"] == "aal2"


async def test_a_credential_belongs_to_one_account(world: World) -> None:
    ann, bob = await world.user(), await world.user()
    key = await enroll_key(world, ann)
    await key.prove(ann)
    stolen = await enroll_key(world, bob, id=key.device.id)
    with pytest.raises(AlreadyExists) as refused:
        await stolen.prove(bob)
    assert refused.value.reason == "MFA_WEBAUTHN_CREDENTIAL_EXISTS"
    assert claims(await world.refresh(bob.refresh_token))["aal"] == "aal1"


async def test_the_browser_is_told_which_authenticators_are_known(world: World) -> None:
    import json  # noqa: PLC0415

    owner = await world.user()
    key = await enroll_key(world, owner)
    raised = (await key.prove(owner)).session
    second = await enroll_key(world, raised, "second")
    options = json.loads((await second.challenge(raised)).options_json)
    assert len(options["excludeCredentials"]) == 1


async def test_another_relying_party_is_refused(world: World) -> None:
    owner = await world.user()
    key = await enroll_key(world, owner)
    for party in (
        auth_pb2.RelyingParty(rp_id="evil.test"),
        auth_pb2.RelyingParty(origins=[ORIGIN, "https://evil.test"]),
    ):
        request = auth_pb2.ChallengeFactorRequest(factor_id=key.factor_id, relying_party=party)
        with pytest.raises(InvalidArgument) as refused:
            await world.rpc.ChallengeFactor(request, metadata=bearer(owner))
        assert refused.value.reason == "VALIDATION_FAILED"
    key.device.origin = "https://evil.test"
    with pytest.raises(InvalidArgument) as refused:
        await key.prove(owner)
    assert refused.value.reason == "MFA_VERIFICATION_FAILED"


async def test_a_deployment_without_a_domain_name_offers_none(world: World) -> None:
    changes = {"site_url": "http://10.0.0.7", "webauthn_rp_id": "", "webauthn_origins": ""}
    owner = await world.user()
    async with world.replica(**changes) as other:
        with pytest.raises(FailedPrecondition) as refused:
            await other.accounts.EnrollFactor(
                auth_pb2.EnrollFactorRequest(factor_type="webauthn"), metadata=bearer(owner)
            )
    assert refused.value.reason == "MFA_WEBAUTHN_ENROLL_NOT_ENABLED"


async def test_a_removed_passkey_protects_no_more(world: World) -> None:
    owner = await world.user()
    key = await enroll_key(world, owner)
    proved = await key.prove(owner)
    thief = await world.sign_in(owner.user.email)
    request = auth_pb2.UnenrollFactorRequest(factor_id=key.factor_id)
    with pytest.raises(Unauthenticated):
        await world.rpc.UnenrollFactor(request, metadata=bearer(thief))
    await world.rpc.UnenrollFactor(request, metadata=bearer(proved.session))
    assert claims(await world.refresh(proved.session.refresh_token))["aal"] == "aal1"
    again = await enroll_key(world, proved.session, "again", id=key.device.id)
    assert (await again.prove(proved.session)).recovery_codes


async def test_administrators_see_and_remove_it(world: World) -> None:
    owner = await world.user()
    key = await enroll_key(world, owner)
    await key.prove(owner)
    operator = bearer(world.operator())
    found = await world.auth.admin.LookupUser(
        admin_pb2.LookupUserRequest(id=owner.user.id), metadata=operator
    )
    assert [factor.factor_type for factor in found.user.factors] == ["webauthn"]
    listed = await get(world, f"/admin/users/{owner.user.id}/factors", world.operator())
    assert [factor["factor_type"] for factor in listed.json()] == ["webauthn"]


async def test_the_calls_of_supabase_s_clients(world: World) -> None:
    """The members and encodings of auth-js: enroll, challenge, verify; then once more to sign in."""
    found = await session(world)
    token, origin = found["access_token"], ORIGIN
    device = Authenticator(origin)
    party = {"rpId": "signgate.test", "rpOrigins": [origin]}
    made = (await post(world, "/factors", {"factor_type": "webauthn", "friendly_name": "key"}, token)).json()
    assert (made["type"], made["friendly_name"]) == ("webauthn", "key")
    assert "totp" not in made

    async def asked() -> dict[str, Any]:
        body = {"factorId": made["id"], "webauthn": party}
        answer = await post(world, f"/factors/{made['id']}/challenge", body, token)
        assert answer.status_code == 200
        challenge: dict[str, Any] = answer.json()
        assert challenge["type"] == "webauthn"
        assert isinstance(challenge["expires_at"], int)
        return challenge

    async def proved(challenge: dict[str, Any]) -> dict[str, Any]:
        asked_for = challenge["webauthn"]
        options = asked_for["credential_options"]["publicKey"]
        given = device.create(options) if asked_for["type"] == "create" else device.get(options)
        webauthn = {"type": asked_for["type"], **party, "credential_response": given}
        body = {"challenge_id": challenge["id"], "webauthn": webauthn}
        answer = await post(world, f"/factors/{made['id']}/verify", body, token)
        assert answer.status_code == 200, answer.text
        raised: dict[str, Any] = answer.json()
        return raised

    first = await proved(await asked())
    assert len(first["recovery_codes"]) == 10
    assert [factor["factor_type"] for factor in first["user"]["factors"]] == ["webauthn"]
    challenge = await asked()
    assert challenge["webauthn"]["type"] == "request"
    assert "recovery_codes" not in await proved(challenge)


@pytest.mark.parametrize(
    "webauthn",
    [
        {},
        {"type": "create"},
        {"type": "create", "credential_response": {"rawId": "AA", "response": {}}},
        {"type": "request", "credential_response": {"rawId": "AA", "response": {}}},
        {"type": "nothing", "credential_response": {"rawId": "AA", "response": {}}},
        {"type": "create", "rpId": "evil.test", "credential_response": {"rawId": "AA", "response": {}}},
    ],
)
async def test_odd_answers_are_refused_by_http(world: World, webauthn: Any) -> None:
    token = (await session(world))["access_token"]
    made = (await post(world, "/factors", {"factor_type": "webauthn"}, token)).json()
    challenge = (await post(world, f"/factors/{made['id']}/challenge", {}, token)).json()
    body = {"challenge_id": challenge["id"], "webauthn": webauthn}
    answer = await post(world, f"/factors/{made['id']}/verify", body, token)
    assert code_of(answer) in [(400, "validation_failed"), (422, "mfa_verification_failed")]


async def test_neither_secret_nor_key_leaves_with_the_account(world: World) -> None:
    owner = await world.user()
    key = await enroll_key(world, owner)
    await key.prove(owner)
    answer = await get(world, "/user", (await world.sign_in(owner.user.email)).access_token)
    (factor,) = answer.json()["factors"]
    assert set(factor) == {"id", "friendly_name", "factor_type", "status", "created_at", "updated_at"}
