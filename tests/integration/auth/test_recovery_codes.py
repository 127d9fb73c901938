"""Recovery codes: counted, made again, and told of by mail."""

from __future__ import annotations

import pytest

from servicekit.errors import InvalidArgument, NotFound, Unauthenticated
from signgate.auth.v1 import auth_pb2 as pb
from tests.integration.auth.test_http import NEW, code_of, get, post
from tests.integration.auth.test_mfa import enroll
from tests.integration.auth.world import World, bearer, claims, text_of


async def test_they_are_counted_and_never_shown(world: World) -> None:
    session = await world.user()
    none = await world.rpc.GetRecoveryCodes(pb.GetRecoveryCodesRequest(), metadata=bearer(session))
    assert (none.left, none.total, none.HasField("created_at")) == (0, 0, False)
    phone = await enroll(world, session)
    proved = await phone.prove(session, phone.code())
    await world.rpc.UseRecoveryCode(
        pb.UseRecoveryCodeRequest(code=proved.recovery_codes[0]), metadata=bearer(proved.session)
    )
    found = await world.rpc.GetRecoveryCodes(pb.GetRecoveryCodesRequest(), metadata=bearer(proved.session))
    assert (found.left, found.total, found.HasField("created_at")) == (9, 10, True)
    answer = await get(world, "/factors/recovery", proved.session.access_token)
    assert answer.json()["left"] == 9
    assert answer.json()["total"] == 10
    assert answer.json()["created_at"].endswith("Z")
    assert not any(code in answer.text for code in proved.recovery_codes)


async def test_new_ones_replace_all_before_and_are_told_of(world: World) -> None:
    session = await world.user()
    phone = await enroll(world, session)
    proved = await phone.prove(session, phone.code())
    caller = bearer(proved.session)
    made = await world.rpc.RegenerateRecoveryCodes(pb.RegenerateRecoveryCodesRequest(), metadata=caller)
    assert len(set(made.recovery_codes) - set(proved.recovery_codes)) == 10
    found = await world.rpc.GetRecoveryCodes(pb.GetRecoveryCodesRequest(), metadata=caller)
    assert (found.left, found.total) == (10, 10)
    letter = await world.mailbox.wait_about(session.user.email, "new recovery codes")
    assert not any(code in text_of(letter) for code in made.recovery_codes)
    fresh = bearer(await world.sign_in(session.user.email))
    with pytest.raises(InvalidArgument):
        await world.rpc.UseRecoveryCode(
            pb.UseRecoveryCodeRequest(code=proved.recovery_codes[1]), metadata=fresh
        )
    used = await world.rpc.UseRecoveryCode(
        pb.UseRecoveryCodeRequest(code=made.recovery_codes[1]), metadata=fresh
    )
    assert claims(used.session)["aal"] == "aal2"


async def test_one_factor_is_not_enough_to_make_new_ones(world: World) -> None:
    """Or who knows the password would make themselves a second factor."""
    session = await world.user()
    with pytest.raises(NotFound) as none:
        await world.rpc.RegenerateRecoveryCodes(pb.RegenerateRecoveryCodesRequest(), metadata=bearer(session))
    assert none.value.reason == "MFA_FACTOR_NOT_FOUND"
    phone = await enroll(world, session)
    await phone.prove(session, phone.code())
    thief = await world.sign_in(session.user.email)
    with pytest.raises(Unauthenticated) as refused:
        await world.rpc.RegenerateRecoveryCodes(pb.RegenerateRecoveryCodesRequest(), metadata=bearer(thief))
    assert refused.value.reason == "INSUFFICIENT_AAL"
    answer = await post(world, "/factors/recovery/regenerate", {}, thief.access_token)
    assert code_of(answer) == (401, "insufficient_aal")


async def test_each_use_is_told_of_and_the_last_three_with_a_warning(world: World) -> None:
    session = await world.user()
    email = session.user.email
    async with world.replica(rate_factor_account="1000 per minute") as other:
        phone = await enroll(world, session)
        proved = await phone.prove(session, phone.code())
        for used, code in enumerate(proved.recovery_codes, 1):
            answer = await other.accounts.UseRecoveryCode(
                pb.UseRecoveryCodeRequest(code=code), metadata=bearer(proved.session)
            )
            assert answer.codes_left == 10 - used
            letter = await world.mailbox.wait_about(email, "A recovery code was used", used)
            text = text_of(letter)
            assert f"{10 - used} of your codes" in text
            assert ("Make new recovery codes soon" in text) == (10 - used <= 3)
            assert code not in text


async def test_the_paths_of_auth_js(world: World) -> None:
    """`mfa.recoveryCodes`: getStatus, regenerate, verify."""
    session = await world.user()
    token = session.access_token
    assert code_of(await get(world, "/factors/recovery-codes", token)) == (404, "mfa_factor_not_found")
    phone = await enroll(world, session)
    token = (await phone.prove(session, phone.code())).session.access_token
    status = (await get(world, "/factors/recovery-codes", token)).json()
    assert (status["type"], status["total"], status["remaining"]) == ("recovery_code", 10, 10)
    made = (await post(world, "/factors/recovery-codes/regenerate", None, token)).json()
    assert (made["type"], made["total"], len(made["codes"])) == ("recovery_code", 10, 10)
    raised = await world.auth.http.post(
        "/factors/recovery-codes/verify",
        json={"code": made["codes"][0]},
        headers={**NEW, "Authorization": f"Bearer {token}"},
    )
    assert raised.status_code == 200
    assert raised.json()["codes_left"] == 9
