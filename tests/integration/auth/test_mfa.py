"""Second factors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass

import pyotp
import pytest

from servicekit.errors import InvalidArgument, NotFound, Unauthenticated
from signgate.auth.v1 import auth_pb2, user_pb2
from tests.integration.auth.world import World, bearer, claims


@dataclass
class Phone:
    """An authenticator app: one factor's secret."""

    world: World
    factor_id: str
    secret: str

    def code(self, step: int = 0) -> str:
        return pyotp.TOTP(self.secret).at(int(time.time()) + 30 * step)

    async def challenge(self, session: user_pb2.Session) -> str:
        request = auth_pb2.ChallengeFactorRequest(factor_id=self.factor_id)
        return (await self.world.rpc.ChallengeFactor(request, metadata=bearer(session))).challenge_id

    async def prove(
        self, session: user_pb2.Session, code: str, challenge: str | None = None
    ) -> auth_pb2.VerifyFactorResponse:
        request = auth_pb2.VerifyFactorRequest(
            factor_id=self.factor_id,
            challenge_id=challenge or await self.challenge(session),
            code=code,
        )
        return await self.world.rpc.VerifyFactor(request, metadata=bearer(session))


async def enroll(world: World, session: user_pb2.Session, name: str = "phone") -> Phone:
    request = auth_pb2.EnrollFactorRequest(factor_type="totp", friendly_name=name)
    done = await world.rpc.EnrollFactor(request, metadata=bearer(session))
    assert pyotp.parse_uri(done.uri).secret == done.secret
    assert done.qr_code.startswith("<svg")
    return Phone(world, done.factor.id, done.secret)


async def test_the_first_proof_protects_the_account_and_ends_other_sessions(world: World) -> None:
    session = await world.user()
    elsewhere = await world.sign_in(session.user.email)
    phone = await enroll(world, session)
    proved = await phone.prove(session, phone.code())
    assert claims(proved.session)["aal"] == "aal2"
    assert claims(proved.session)["amr"][0]["method"] == "totp"
    assert len(set(proved.recovery_codes)) == 10
    assert claims(await world.refresh(proved.session.refresh_token))["aal"] == "aal2"
    with pytest.raises(Unauthenticated):
        await world.rpc.GetUser(auth_pb2.GetUserRequest(), metadata=bearer(elsewhere))
    assert claims(await world.sign_in(session.user.email))["aal"] == "aal1"


async def test_a_code_counts_once_even_at_once(world: World) -> None:
    session = await world.user()
    phone = await enroll(world, session)
    await phone.prove(session, phone.code(-1))
    code = phone.code()
    challenges = [await phone.challenge(session) for _ in range(4)]
    outcomes = await asyncio.gather(
        *(phone.prove(session, code, challenge) for challenge in challenges), return_exceptions=True
    )
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    with pytest.raises(InvalidArgument) as older:
        await phone.prove(session, phone.code(-1))
    assert older.value.reason == "MFA_VERIFICATION_FAILED"


async def test_five_wrong_codes_end_a_challenge(world: World) -> None:
    session = await world.user()
    phone = await enroll(world, session)
    challenge, right = await phone.challenge(session), phone.code()
    wrong = str((int(right) + 1) % 1_000_000).zfill(6)
    for _ in range(5):
        with pytest.raises(InvalidArgument) as failed:
            await phone.prove(session, wrong, challenge)
        assert failed.value.reason == "MFA_VERIFICATION_FAILED"
    with pytest.raises(InvalidArgument) as ended:
        await phone.prove(session, right, challenge)
    assert ended.value.reason == "MFA_CHALLENGE_EXPIRED"


async def test_with_one_factor_only_nothing_that_matters_changes(world: World) -> None:
    """A thief with the password alone can change neither password nor address, nor the factors."""
    session = await world.user()
    phone = await enroll(world, session)
    await phone.prove(session, phone.code())
    thief = bearer(await world.sign_in(session.user.email))
    attempts: list[Awaitable[object]] = [
        world.rpc.UpdateUser(auth_pb2.UpdateUserRequest(password="the thief's password"), metadata=thief),
        world.rpc.UpdateUser(auth_pb2.UpdateUserRequest(email="thief@example.com"), metadata=thief),
        world.rpc.UnenrollFactor(auth_pb2.UnenrollFactorRequest(factor_id=phone.factor_id), metadata=thief),
        world.rpc.EnrollFactor(auth_pb2.EnrollFactorRequest(factor_type="totp"), metadata=thief),
        world.rpc.DeleteUser(auth_pb2.DeleteUserRequest(password="ten green bottles"), metadata=thief),
    ]
    for attempt in attempts:
        with pytest.raises(Unauthenticated) as refused:
            await attempt
        assert refused.value.reason == "INSUFFICIENT_AAL"


async def test_a_recovery_code_stands_in_once(world: World) -> None:
    session = await world.user()
    phone = await enroll(world, session)
    codes = (await phone.prove(session, phone.code())).recovery_codes
    fresh = await world.sign_in(session.user.email)
    request = auth_pb2.UseRecoveryCodeRequest(code=codes[0].upper().replace("-", " "))
    used = await world.rpc.UseRecoveryCode(request, metadata=bearer(fresh))
    assert claims(used.session)["aal"] == "aal2"
    assert used.codes_left == 9
    with pytest.raises(InvalidArgument):
        await world.rpc.UseRecoveryCode(request, metadata=bearer(fresh))


async def test_a_removed_factor_protects_no_more_and_takes_its_codes_along(world: World) -> None:
    session = await world.user()
    phone = await enroll(world, session)
    proved = await phone.prove(session, phone.code())
    request = auth_pb2.UnenrollFactorRequest(factor_id=phone.factor_id)
    await world.rpc.UnenrollFactor(request, metadata=bearer(proved.session))
    assert claims(await world.refresh(proved.session.refresh_token))["aal"] == "aal1"
    with pytest.raises(InvalidArgument):
        await world.rpc.UseRecoveryCode(
            auth_pb2.UseRecoveryCodeRequest(code=proved.recovery_codes[0]),
            metadata=bearer(proved.session),
        )


async def test_another_user_s_factor_does_not_exist(world: World) -> None:
    session, stranger = await world.user(), await world.user()
    phone = await enroll(world, session)
    challenge = await phone.challenge(session)
    with pytest.raises(NotFound):
        await phone.challenge(stranger)
    with pytest.raises(NotFound):
        await phone.prove(stranger, phone.code(), challenge)
    with pytest.raises(NotFound):
        await world.rpc.UnenrollFactor(
            auth_pb2.UnenrollFactorRequest(factor_id=phone.factor_id), metadata=bearer(stranger)
        )


async def test_the_secret_is_stored_encrypted(world: World) -> None:
    session = await world.user()
    phone = await enroll(world, session)
    sealed = await world.sql.fetchval(
        "SELECT secret FROM auth.mfa_factors WHERE id = $1::uuid", phone.factor_id
    )
    assert phone.secret.encode() not in sealed


async def test_two_factors_of_one_name_are_refused(world: World) -> None:
    session = await world.user()
    await enroll(world, session)
    with pytest.raises(Exception, match="MFA_FACTOR_NAME_CONFLICT"):
        await enroll(world, session)
