"""The page behind a mailed link. Looking at it changes nothing; its button redeems the link.

Mail scanners and previews follow links with GET. Only the button's POST counts, so they burn nothing.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from servicekit.errors import SigngateError
from servicekit.route_limits import RouteLimits
from services.auth.domain import OtpType
from services.auth.errors import ValidationFailed
from services.auth.http.accounts import Accounts, otp_type
from services.auth.http.bodies import Body, body, query, raw
from services.auth.http.refusals import code_of, status_of
from services.auth.http.routing import client
from services.auth.service import AuthService, Followed

FORM: Final = "application/x-www-form-urlencoded"
FIELDS: Final = 20
"""That a form may have: the button sends three."""
READ: Final = frozenset({"token", "type", "redirect_to"})
HEADERS: Final = {
    "cache-control": "no-store",
    # No script, no frame, nothing from elsewhere. The form's answer leads away, so it is not bound.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
}
WORDS: Final[dict[OtpType, tuple[str, str]]] = {
    "signup": ("Confirm your address", "Confirm"),
    "magiclink": ("Sign in", "Sign in"),
    "email": ("Sign in", "Sign in"),
    "recovery": ("Set a new password", "Continue"),
    "email_change": ("Confirm the change of your address", "Confirm"),
    "invite": ("Accept your invitation", "Accept"),
}


class Page:
    """GET shows the page; POST is its button's, or a client's JSON."""

    def __init__(self, service: AuthService, accounts: Accounts) -> None:
        self._service, self._accounts = service, accounts
        self._templates = Environment(
            loader=PackageLoader("services.auth", "http/templates"),
            autoescape=select_autoescape(("html",)),
            undefined=StrictUndefined,
        )

    async def show(self, request: Request) -> Response:
        """The button, with what the link carried behind it."""
        kind = otp_type(query(request, "type"))
        title, button = WORDS[kind]
        html = self._templates.get_template("verify.html").render(
            title=title,
            button=button,
            token=query(request, "token") or query(request, "token_hash"),
            kind=kind,
            redirect_to=query(request, "redirect_to"),
        )
        return HTMLResponse(html, headers=HEADERS)

    async def post(self, request: Request) -> Response:
        """A form is the button's and leads on; JSON is a client's and gets its session."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
            return await self._accounts.verify(await body(request), request)
        given = _form(await raw(request), request.state.limits)
        wanted = self._service.rules.redirect(given.text("redirect_to"))
        try:
            kind = otp_type(given.text("type"))
            followed = await self._service.verify.follow(kind, given.text("token"), client(request))
        except SigngateError as error:
            if status_of(error) >= 500:  # noqa: PLR2004
                raise
            return _lead(wanted, _failure(error))
        return _lead(followed.redirect_to or wanted, _success(followed, kind), query=bool(followed.auth_code))


def _form(received: bytes, limits: RouteLimits) -> Body:
    # Undecodable bytes become U+FFFD, which can't make a token good.
    try:
        pairs = parse_qs(received.decode("utf-8", "replace"), max_num_fields=FIELDS)
    except ValueError:
        raise ValidationFailed("form", f"must have at most {FIELDS} fields") from None
    if twice := next((name for name, values in pairs.items() if len(values) > 1 and name in READ), ""):
        raise ValidationFailed(twice, "must stand once in the form")
    found = {name: values[-1] for name, values in pairs.items()}
    limits.check_texts(found, {**limits.members, "token": limits.members["token_hash"]})
    return Body(found)


def _success(followed: Followed, kind: OtpType) -> dict[str, str]:
    if followed.auth_code:
        return {"code": followed.auth_code}
    if followed.issued is None:
        return {"message": "Confirmed. Now open the link in the mail to your other address."}
    issued = followed.issued
    return {
        "access_token": issued.access_token,
        "expires_at": str(issued.expires_at),
        "expires_in": str(issued.expires_in),
        "refresh_token": issued.refresh_token,
        "token_type": "bearer",
        "type": kind,
    }


def _failure(error: SigngateError) -> dict[str, str]:
    return {
        "error": "access_denied",
        "error_code": code_of(error),
        "error_description": error.message,
    }


def _lead(where: str, facts: dict[str, str], *, query: bool = False) -> RedirectResponse:
    """On to the client. Sessions go in the fragment, which no server sees; PKCE codes in the query."""
    base, _, fragment = where.partition("#")
    if query:
        mark = "&" if "?" in base else "?"
        target = f"{base}{mark}{urlencode(facts)}{'#' if fragment else ''}{fragment}"
    else:
        target = f"{base}#{urlencode(facts)}"
    return RedirectResponse(target, 303, HEADERS)
