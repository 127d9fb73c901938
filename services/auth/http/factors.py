"""Handlers for second factors."""

from __future__ import annotations

from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from servicekit import context
from services.auth.errors import ValidationFailed
from services.auth.http import present
from services.auth.http.bodies import body, path_id
from services.auth.http.routing import client
from services.auth.service import AuthService


class Factors:
    """One method a path."""

    def __init__(self, service: AuthService) -> None:
        self._mfa = service.mfa

    async def enroll(self, request: Request) -> Response:
        given = await body(request)
        done = await self._mfa.enroll(
            context.principal(),
            given.text("factor_type"),
            given.text("friendly_name"),
            given.text("issuer"),
            client(request),
        )
        totp = {"qr_code": done.qr_code, "secret": done.secret, "uri": done.uri}
        return JSONResponse({**present.factor(done.factor), "type": "totp", "totp": totp})

    async def challenge(self, request: Request) -> Response:
        factor_id = path_id(request, "factor_id")
        challenge_id, ends = await self._mfa.challenge(context.principal(), factor_id, client(request))
        return JSONResponse({"id": str(challenge_id), "type": "totp", "expires_at": int(ends.timestamp())})

    async def verify(self, request: Request) -> Response:
        given, factor_id = await body(request), path_id(request, "factor_id")
        try:
            challenge_id = UUID(given.text("challenge_id"))
        except ValueError:
            raise ValidationFailed("challenge_id", "must be a UUID") from None
        proved = await self._mfa.verify(
            context.principal(), factor_id, challenge_id, given.text("code"), client(request)
        )
        found = present.session(proved.issued)
        if proved.recovery_codes:
            found["recovery_codes"] = list(proved.recovery_codes)
        return JSONResponse(found)

    async def recover(self, request: Request) -> Response:
        given = await body(request)
        issued, left = await self._mfa.recover(context.principal(), given.text("code"), client(request))
        return JSONResponse({**present.session(issued), "codes_left": left})

    async def unenroll(self, request: Request) -> Response:
        factor_id = path_id(request, "factor_id")
        await self._mfa.unenroll(context.principal(), factor_id, client(request))
        return JSONResponse({"id": str(factor_id)})
