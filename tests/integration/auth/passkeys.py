"""Passkeys of a test's user, through both faces."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from signgate.auth.v1 import auth_pb2 as pb
from signgate.auth.v1 import user_pb2
from tests.authenticator import Authenticator, from_url64
from tests.integration.auth.world import World, bearer

ORIGIN = "https://signgate.test"


@dataclass
class Key:
    """A security key and the factor that it is set up as, over gRPC."""

    world: World
    factor_id: str
    device: Authenticator = field(default_factory=lambda: Authenticator(ORIGIN))

    async def challenge(self, session: user_pb2.Session) -> pb.ChallengeFactorResponse:
        request = pb.ChallengeFactorRequest(
            factor_id=self.factor_id,
            relying_party=pb.RelyingParty(rp_id="signgate.test", origins=[ORIGIN]),
        )
        return await self.world.rpc.ChallengeFactor(request, metadata=bearer(session))

    def answer(self, asked: pb.ChallengeFactorResponse) -> pb.PasskeyResponse:
        """What the browser gives for a challenge."""
        options = json.loads(asked.options_json)
        creating = asked.ceremony == pb.CEREMONY_CREATE
        given = self.device.create(options) if creating else self.device.get(options)
        response = given["response"]

        def part(name: str) -> bytes:
            return from_url64(response.get(name, ""))

        return pb.PasskeyResponse(
            ceremony=asked.ceremony,
            credential_id=from_url64(given["rawId"]),
            client_data=part("clientDataJSON"),
            attestation_object=part("attestationObject"),
            authenticator_data=b"" if creating else part("authenticatorData"),
            signature=part("signature"),
            user_handle=part("userHandle"),
            transports=response.get("transports", []),
        )

    async def prove(
        self, session: user_pb2.Session, asked: pb.ChallengeFactorResponse | None = None, **changes: Any
    ) -> pb.VerifyFactorResponse:
        asked = asked or await self.challenge(session)
        answer = self.answer(asked)
        for name, value in changes.items():
            setattr(answer, name, value)
        request = pb.VerifyFactorRequest(
            factor_id=self.factor_id, challenge_id=asked.challenge_id, passkey=answer
        )
        return await self.world.rpc.VerifyFactor(request, metadata=bearer(session))


async def enroll_key(world: World, session: user_pb2.Session, name: str = "key", **device: Any) -> Key:
    """A passkey that is set up and not yet created."""
    request = pb.EnrollFactorRequest(factor_type="webauthn", friendly_name=name)
    done = await world.rpc.EnrollFactor(request, metadata=bearer(session))
    assert (done.secret, done.uri, done.qr_code) == ("", "", "")
    assert done.factor.factor_type == "webauthn"
    return Key(world, done.factor.id, Authenticator(ORIGIN, **device))
