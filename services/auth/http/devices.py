"""The cookie by which a browser is known again (docs/adr/0018): no credential, it opens nothing.

It is given to pages of this very origin alone, such as the console and the page behind a mailed link. Calls
of other pages carry no cookies, and none are set there (the edge's CORS allows no credentials).
"""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from services.auth.domain import REMEMBERED_DAYS, Device

NAME: Final = "signgate_device"
_proof: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def shown(request: Request) -> Device | None:
    """What the browser shows, "" for none; `None` for a caller that keeps no cookie of ours."""
    if request.headers.get("sec-fetch-site") != "same-origin":
        return None
    proof = request.cookies.get(NAME, "")
    device = Device(proof if _proof.fullmatch(proof) else "")
    request.state.device = device
    return device


def give(request: Request, response: Response, *, secure: bool) -> None:
    """Set the cookie, if a use case gave the device a proof."""
    device: Device | None = getattr(request.state, "device", None)
    if device is not None and device.given:
        response.set_cookie(
            NAME,
            device.given,
            max_age=REMEMBERED_DAYS * 86_400,
            path="/auth/v1",
            secure=secure,
            httponly=True,
            samesite="strict",
        )
