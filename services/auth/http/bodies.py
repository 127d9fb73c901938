"""What callers send: JSON objects and query parameters, read member by member."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn
from uuid import UUID

from starlette.requests import Request

from servicekit.errors import InvalidArgument
from servicekit.route_limits import RouteLimits
from services.auth import domain
from services.auth.domain import Pkce
from services.auth.errors import ValidationFailed
from services.auth.http import unsupported
from services.auth.service.kit import storable


class BadJson(InvalidArgument):
    """The body is no JSON object."""

    reason = "BAD_JSON"
    message = "The body must be a JSON object in UTF-8."


class Body:
    """A JSON object whose members are asked for by type. Absent and null are the same, except to `null`.

    Every reader raises `ValidationFailed` for a member of another type. Unknown members are
    passed over, but for those of `services.auth.http.unsupported`.
    """

    def __init__(self, members: Mapping[str, Any]) -> None:
        self.members = members

    def text(self, name: str) -> str:
        """A string, "" when absent."""
        return self.optional_text(name) or ""

    def optional_text(self, name: str) -> str | None:
        value = self.members.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise ValidationFailed(name, "must be text")
        if not storable(value):
            raise ValidationFailed(name, "must be Unicode text without U+0000")
        return value

    def null(self, name: str) -> bool:
        """Whether the member is there and null."""
        return name in self.members and self.members[name] is None

    def flag(self, name: str) -> bool | None:
        value = self.members.get(name)
        if value is not None and not isinstance(value, bool):
            raise ValidationFailed(name, "must be true or false")
        return value

    def mapping(self, name: str) -> dict[str, Any] | None:
        value = self.members.get(name)
        if value is not None and not isinstance(value, dict):
            raise ValidationFailed(name, "must be an object")
        return value

    def pkce(self) -> Pkce | None:
        """The PKCE binding, in the flat form of Supabase's clients."""
        return domain.pkce(self.text("code_challenge"), self.text("code_challenge_method"))


async def raw(request: Request) -> bytes:
    """The body. Raises `BodyTooLarge`."""
    return await _limits(request).read(request)


async def body(request: Request) -> Body:
    """The body as a JSON object, its strings within the route's limits; nothing counts as an empty one.

    Read once: a second call returns the same. Raises `BodyTooLarge`, `BadJson`, `InvalidArgument`;
    the last for members of `unsupported`, too.
    """
    known: Body | None = getattr(request.state, "body", None)
    if known is None:
        known = request.state.body = await _read(request)
    return known


async def _read(request: Request) -> Body:
    received = await raw(request)
    if not received.strip():
        return Body({})
    try:
        found = json.loads(received.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise BadJson from None
    if not isinstance(found, dict):
        raise BadJson
    limits = _limits(request)
    limits.check_texts(found, limits.members)
    unsupported.check(found, request.state.unsupported)
    return Body(found)


def _limits(request: Request) -> RouteLimits:
    """Those of the request's route; `routing` has put them there."""
    limits: RouteLimits = request.state.limits
    return limits


def query(request: Request, name: str, default: str = "") -> str:
    """A query parameter. Raises `ValidationFailed` for what is no text."""
    value = request.query_params.get(name, default)
    if not storable(value):
        raise ValidationFailed(name, "must be Unicode text without U+0000")
    return str(value)


def number(request: Request, name: str) -> int:
    """A whole number among the query parameters, 0 when absent or empty."""
    value = query(request, name)
    if not value:
        return 0
    if not value.isascii() or not value.isdigit() or len(value) > 9:  # noqa: PLR2004  # below 2^31
        raise ValidationFailed(name, "must be a number from 0 to 999999999")
    return int(value)


def path_id(request: Request, name: str) -> UUID:
    """A UUID in the path. Raises `ValidationFailed`."""
    try:
        return UUID(request.path_params[name])
    except ValueError:
        raise ValidationFailed(name, "must be a UUID") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity are no JSON
