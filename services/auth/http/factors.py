"""Handlers for second factors."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from servicekit import context
from services.auth.errors import FactorNotFound, ValidationFailed
from services.auth.http import passkeys, present
from services.auth.http.bodies import body, path_id
from services.auth.http.routing import client
from services.auth.service import AuthService


class Factors:
    """One method a path."""

    def __init__(self, service: AuthService) -> None:
        self._mfa, self._recovery = service.mfa, service.recovery

    async def enroll(self, request: Request) -> Response:
        given = await body(request)
        done = await self._mfa.enroll(
            context.principal(),
            given.text("factor_type"),
            given.text("friendly_name"),
            given.text("issuer"),
            client(request),
        )
        found = {**present.factor(done.factor), "type": done.factor.factor_type}
        if done.secret:
            found["totp"] = {"qr_code": done.qr_code, "secret": done.secret, "uri": done.uri}
        return JSONResponse(found)

    async def challenge(self, request: Request) -> Response:
        given, factor_id = await body(request), path_id(request, "factor_id")
        rp_id, origins = passkeys.party(given.mapping("webauthn"))
        asked = await self._mfa.challenge(
            context.principal(), factor_id, client(request), rp_id=rp_id, origins=origins
        )
        ends = int(asked.expires_at.timestamp())
        found: dict[str, Any] = {"id": str(asked.id), "type": asked.kind, "expires_at": ends}
        if asked.options is not None:
            options = {"publicKey": asked.options}
            found["webauthn"] = {"type": asked.ceremony, "credential_options": options}
        return JSONResponse(found)

    async def verify(self, request: Request) -> Response:
        given, factor_id = await body(request), path_id(request, "factor_id")
        try:
            challenge_id = UUID(given.text("challenge_id"))
        except ValueError:
            raise ValidationFailed("challenge_id", "must be a UUID") from None
        webauthn = given.mapping("webauthn")
        answer = given.text("code") if webauthn is None else passkeys.answer(webauthn)
        proved = await self._mfa.verify(context.principal(), factor_id, challenge_id, answer, client(request))
        found = present.session(proved.issued)
        if proved.recovery_codes:
            found["recovery_codes"] = list(proved.recovery_codes)
        return JSONResponse(found)

    async def recover(self, request: Request) -> Response:
        given = await body(request)
        issued, left = await self._mfa.recover(context.principal(), given.text("code"), client(request))
        return JSONResponse({**present.session(issued), "codes_left": left})

    async def recovery(self, request: Request) -> Response:
        """How many recovery codes are left: by our names, and by those of `mfa.recoveryCodes` of auth-js."""
        principal = context.principal()
        state = await self._recovery.state(principal)
        if request.url.path.endswith("recovery-codes") and not state.total:
            raise FactorNotFound
        return JSONResponse(
            {
                "id": str(principal.user_id),
                "type": "recovery_code",
                "left": state.left,
                "remaining": state.left,
                "total": state.total,
                "created_at": present.moment(state.created_at),
            }
        )

    async def regenerate(self, request: Request) -> Response:
        principal = context.principal()
        codes = await self._recovery.regenerate(principal, client(request))
        found = {"id": str(principal.user_id), "type": "recovery_code", "total": len(codes)}
        return JSONResponse({**found, "codes": list(codes)})

    async def unenroll(self, request: Request) -> Response:
        factor_id = path_id(request, "factor_id")
        await self._mfa.unenroll(context.principal(), factor_id, client(request))
        return JSONResponse({"id": str(factor_id)})
