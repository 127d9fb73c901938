"""The routes of the sign-server face, and what every one of them does around its work."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from servicekit import log
from servicekit.clock import Clock
from servicekit.edge import Edge
from servicekit.errors import Cancelled, Internal, SigngateError
from servicekit.http import entered, observed, unless_gone
from servicekit.route_limits import RouteLimits
from services.signer.domain import Signed
from services.signer.http import answers, questions
from services.signer.http.refusals import plain, refusal
from services.signer.jobs import Job, Wish
from services.signer.limits import LimitReader
from services.signer.service import SignerService

Act = Callable[[Request], Awaitable[Response]]

POSTED: Final = RouteLimits(query=4 * 1024, body=128 * 1024)
"""A payload has up to 64 KiB. What is wrong with a single member is accounted for, so the job tells it."""
ASKED: Final = RouteLimits(query=12 * 1024, body=4 * 1024)
"""A room URL has up to 2048 characters, most of which may be percent-encoded."""
PLAIN: Final = RouteLimits(query=4 * 1024)

_document: Final = Path(__file__).with_name("openapi.json")
_log = log.get("http")


def create_app(service: SignerService, limits: LimitReader, clock: Clock, edge: Edge) -> Starlette:
    """The application. Every path is taken with and without a slash at its end."""
    face = Face(service, limits, clock, edge)
    routes = [
        *_routes("/webcast/sign_url", "POST", face.handler("sign_url", face.sign, POSTED)),
        *_routes("/tiktok/sign_url", "POST", face.handler("sign_url", face.sign, POSTED)),
        *_routes("/webcast/sign_url", "GET", face.handler("sign_url_legacy", face.sign_legacy, ASKED)),
        *_routes("/webcast/rate_limits", "GET", face.handler("rate_limits", face.rate_limits, PLAIN)),
        *_routes("/accounts/me/rate_limits", "GET", face.handler("rate_limits", face.rate_limits, PLAIN)),
        *_routes("/webcast/openapi.json", "GET", face.handler("openapi", face.openapi, PLAIN)),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _not_served})
    app.router.redirect_slashes = False  # a redirect would turn a client's POST into a GET
    return app


class Face:
    """The handlers. Thin: who asks and what for, one call of the service, an answer."""

    def __init__(self, service: SignerService, limits: LimitReader, clock: Clock, edge: Edge) -> None:
        self._service = service
        self._limits = limits
        self._clock = clock
        self._edge = edge
        self._openapi = _document.read_bytes()

    def handler(self, name: str, act: Act, limits: RouteLimits) -> Act:
        """`act` with its limits held first, its errors answered, its context entered, its time observed."""

        async def handle(request: Request) -> Response:
            entered(request, self._edge)
            try:
                limits.check(request)
                response = await act(request)
            except ClientDisconnect:
                response = self._refuse(Cancelled())
            except SigngateError as error:
                response = self._refuse(error)
            except Exception:  # noqa: BLE001  # logged; nothing about it is told
                _log.exception("a request failed", route=name)
                response = self._refuse(Internal())
            return response

        return observed(f"http/{name}", handle)

    async def sign(self, request: Request) -> Response:
        """Both POST forms."""
        identity = await self._service.identify(questions.metadata(request))
        wish = questions.posted(await POSTED.read(request))
        job = self._service.job(identity, (wish,), None)
        return await self._answer(request, job, answers.signature)

    async def sign_legacy(self, request: Request) -> Response:
        """The GET of older clients."""
        identity = await self._service.identify(questions.metadata(request))
        wish: Wish = questions.asked(request)
        await ASKED.read(request)  # read away, so that what is received next is the client's leaving
        return await self._answer(request, self._service.job(identity, (wish,), None), answers.legacy)

    async def rate_limits(self, request: Request) -> Response:
        """What the caller may still sign."""
        identity = await self._service.identify(questions.metadata(request))
        return _json(200, answers.allowance(await self._limits.read(identity)), {})

    async def openapi(self, _: Request) -> Response:
        """The contract of this face."""
        return Response(self._openapi, media_type="application/json")

    async def _answer(self, request: Request, job: Job, write: Callable[[Signed], Any]) -> Response:
        try:
            # A request whose client has disconnected is not signed or charged.
            part = await unless_gone(request, self._service.sign(job))
        except SigngateError as error:
            return self._refuse(error, job.parts[0].request_id)
        if part.signed is None:
            raise ValueError("a part without error or signature")
        headers = answers.signed_headers(job, part.signed, self._clock.time())
        return _json(200, write(part.signed), headers)

    def _refuse(self, error: SigngateError, request_id: str = "") -> Response:
        found = refusal(error, self._clock.time())
        if request_id:
            found.headers.update(answers.request_id(request_id))
        return _json(*found)


def _routes(path: str, method: str, act: Act) -> list[Route]:
    routes = [Route(path, act, methods=[method]), Route(f"{path}/", act, methods=[method])]
    for route in routes:
        route.methods = {method}  # without HEAD, which would sign and charge for nothing
    return routes


def _not_served(_: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    reasons = {404: "NO_SUCH_PATH", 405: "METHOD_NOT_ALLOWED"}
    messages = {404: "There is nothing at this path.", 405: "This path does not take that method."}
    found = plain(
        error.status_code,
        messages.get(error.status_code, error.detail),
        reasons.get(error.status_code, "HTTP_ERROR"),
    )
    return _json(found.status, found.body, found.headers | dict(error.headers or {}))


def _json(status: int, body: Any, headers: dict[str, str]) -> Response:
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    return Response(content, status, headers, media_type="application/json")
