"""TOTP (RFC 6238: SHA-1, 6 digits, 30 seconds)."""

from __future__ import annotations

import io
from typing import Final

import pyotp

from services.auth.secrets import same

STEP: Final = 30
"""Seconds of a time step."""


def matching_step(secret: str, code: str, now: float, last_used: int | None) -> int | None:
    """The time step whose code it is, one either way allowed; `None` for a wrong or a used one."""
    totp, current = pyotp.TOTP(secret), int(now) // STEP
    typed = "".join(code.split())
    for step in (current - 1, current, current + 1):
        unused = last_used is None or step > last_used
        if unused and same(totp.generate_otp(step), typed):
            return step
    return None


def svg(uri: str) -> str:
    """The address as a QR code. Any mask can be read; trying all eight takes most of the time."""
    import segno  # noqa: PLC0415  # half a megabyte that only an enrolment needs

    out = io.BytesIO()
    segno.make(uri, error="m", mask=3).save(out, kind="svg", scale=4, xmldecl=False)
    return out.getvalue().decode()
