"""What is the same round every handler: context, authentication, policy, errors, metrics.

Each route has its own limits (`services.auth.http.limits`), which are checked before anything else. A
handler that needs a caller names the RPC it stands beside; that RPC's policy, written in the contract,
is the handler's. So the two faces can't come to differ in whom they let in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from servicekit import log
from servicekit.authn import Metadata
from servicekit.clock import Clock, SystemClock
from servicekit.edge import Edge
from servicekit.errors import Internal, SigngateError
from servicekit.http import entered, observed
from servicekit.rpc.policy import guards
from servicekit.rpc.server import Authenticator
from services.auth.client import client_of
from services.auth.domain import Client
from services.auth.http import devices
from services.auth.http.bodies import body
from services.auth.http.limits import LIMITS
from services.auth.http.refusals import VERSION, VERSION_HEADER, refusal
from services.auth.http.unsupported import UNSUPPORTED
from signgate.auth.v1 import admin_pb2, auth_pb2

Handler = Callable[[Request], Awaitable[Response]]

ACCOUNTS: Final = auth_pb2.DESCRIPTOR.services_by_name["AuthService"].full_name
ADMIN: Final = admin_pb2.DESCRIPTOR.services_by_name["AuthAdminService"].full_name
CLOSED: Final = 499
"""The status noted for a client that went away; nobody receives it."""

_log = log.get("http")


class Routes:
    """Makes routes. `policy` is `Service/Method`, or `None` for a path that looks at no credential.

    `secure`: browsers reach the deployment by https, and send cookies by nothing else.
    """

    def __init__(
        self, authenticator: Authenticator, edge: Edge, clock: Clock | None = None, *, secure: bool = True
    ) -> None:
        self._secure = secure
        self._authenticator = authenticator
        self._edge = edge
        self._clock = clock or SystemClock()
        self._guards = {
            f"{service}/{name}": guard
            for service in (ACCOUNTS, ADMIN)
            for name, guard in guards(service).items()
        }

    def route(self, method: str, path: str, handler: Handler, policy: str | None = None) -> Route:
        """One route, named for its policy.

        Raises `KeyError` for a path without limits, and for a policy of no RPC.
        """
        limits = LIMITS[method, path]
        guard = None if policy is None else self._guards[policy]
        unsupported = UNSUPPORTED.get((method, path), {})
        name = f"http{path}/{method}"

        async def guarded(request: Request) -> Response:
            here = entered(request, self._edge)
            try:
                limits.check(request)
                request.state.limits = limits
                request.state.unsupported = unsupported
                if guard is not None:
                    here.principal = await self._authenticator.authenticate(metadata(request))
                    # The body's members have the names of the contract's fields.
                    given = (await body(request)).members if guard.reads_request else None
                    guard.enforce(here.principal, given, self._clock.time())
                response = await handler(request)
                devices.give(request, response, secure=self._secure)
            except ClientDisconnect:
                response = Response(status_code=CLOSED)
            except SigngateError as error:
                if error.__cause__ is not None:
                    _log.warning("call failed", path=path, reason=error.reason, cause=error.__cause__)
                response = refusal(request, error)
            except Exception:  # noqa: BLE001  # nothing about it is told
                _log.exception("unexpected failure", path=path)
                response = refusal(request, Internal())
            response.headers.setdefault("cache-control", "no-store")
            if request.headers.get(VERSION_HEADER, "") >= VERSION:
                response.headers[VERSION_HEADER] = VERSION
            return response

        return Route(path, observed(name, guarded), methods=[method], name=policy)


def metadata(request: Request) -> Metadata:
    """Headers as gRPC's metadata: names in small letters."""
    return [(name, value) for name, value in request.headers.items()]


def client(request: Request) -> Client:
    """Where the call comes from."""
    return client_of(metadata(request), devices.shown(request))
