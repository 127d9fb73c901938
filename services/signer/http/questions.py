"""From an HTTP request to who asks and what for.

Members and parameters that are not known are ignored, as are the session cookie and the other
platform cookies that some libraries offer (`sessionId`, `ttTargetIdc`, `ttwid`): nothing here needs
them, so nothing here looks at them, keeps them or logs them.
"""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.requests import Request

from servicekit.authn import CredentialAmbiguous
from servicekit.errors import InvalidArgument, SigngateError
from services.signer.jobs import Wish

MAX_PAYLOAD: Final = 64 * 1024
"""Characters of the payload that a signature is for."""
METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_longest_method: Final = max(map(len, METHODS))


def metadata(request: Request) -> list[tuple[str, str]]:
    """The headers as the credential is looked for in them; each `?apiKey=` counts as an `x-api-key`.

    Raises `CredentialAmbiguous` for one beside any `authorization`, an access token too.
    """
    given = request.query_params.multi_items()
    keys = [("x-api-key", value) for name, value in given if name == "apiKey" and value.strip()]
    if keys and request.headers.get("authorization", "").strip():
        raise CredentialAmbiguous
    return [*request.headers.items(), *keys]


def posted(content: bytes) -> Wish:
    """What a POST asks. What is wrong with it stands in the wish, so that it is accounted for."""
    try:
        members = json.loads(content)
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, dict):
        return Wish("", wrong=_wrong("body", "must be a JSON object"))
    return _wish(members, "url")


def asked(request: Request) -> Wish:
    """What the legacy GET asks."""
    return _wish(dict(request.query_params), "url")


def _wish(members: dict[str, Any], url: str) -> Wish:
    try:
        return Wish(
            _text(members, url, required=True),
            engine=_text(members, "engine"),
            user_agent=_text(members, "userAgent"),
            platform_tokens=True,
            method=_method(_text(members, "method")),
            payload=_payload(_text(members, "payload")),
        )
    except SigngateError as wrong:
        return Wish("", wrong=wrong)


def _text(members: dict[str, Any], name: str, *, required: bool = False) -> str:
    value = members.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value):
        raise _wrong(name, "must be a text" if value is not None else "is required, as a text")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair
        raise _wrong(name, "must be well-formed Unicode") from None
    return value


def _method(method: str) -> str:
    if method and (len(method) > _longest_method or method.upper() not in METHODS):
        raise _wrong("method", "is no HTTP method that a browser sends")
    return method.upper() or "GET"


def _payload(payload: str) -> str:
    if len(payload) > MAX_PAYLOAD:
        raise _wrong("payload", f"has more than {MAX_PAYLOAD} characters")
    return payload


def _wrong(name: str, what: str) -> InvalidArgument:
    return InvalidArgument.field(name, what)
