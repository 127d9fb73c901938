"""From a signature or limits to the JSON and the headers that the libraries read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from services.signer.compat import contract_tokens
from services.signer.domain import EngineInfo, Signed
from services.signer.jobs import Job, Limit
from services.signer.limits import Allowance

_DAYS: Final = ("user_day", "key_day")
_MINUTES: Final = ("user_minute", "key_minute")
_AGENT_NAME: Final = "Mozilla"
_AGENT_VERSION: Final = "5.0"


def signature(signed: Signed) -> dict[str, Any]:
    """The answer to both POST forms. `code` is a number, `tokens` never empty."""
    name, version = _browser(signed.user_agent)
    return {
        "code": 200,
        "message": "ok",
        "response": {
            "signedUrl": signed.signed_url,
            "userAgent": signed.user_agent,
            "browserName": name,
            "browserVersion": version,
            "tokens": contract_tokens(signed),
            "requestHeaders": dict(signed.request_headers),
            "cookies": [
                {"name": cookie.name, "value": cookie.value, "domain": cookie.domain, "path": cookie.path}
                for cookie in signed.cookies
            ],
        },
    }


def legacy(signed: Signed) -> dict[str, str]:
    """The answer to the legacy GET."""
    return {
        "signedUrl": signed.signed_url,
        "User-Agent": signed.user_agent,
        "msToken": contract_tokens(signed)["msToken"],
    }


def allowance(found: Allowance) -> dict[str, Any]:
    """The answer about rate limits.

    Each window shows the limit of the account or of the key that leaves less. There is no limit an
    hour here, so `hour` repeats the day's, which is what stops a caller within an hour; the same
    holds for `minute` where the plan has no limit a minute.
    """
    day = _window(found.limits, _DAYS)
    minute = _window(found.limits, _MINUTES)
    return {
        "code": 200,
        "message": "ok",
        "day": day or minute,
        "hour": day or minute,
        "minute": minute or day,
        "load_shedding": {"at": found.shed_at, "chance": 1 if found.waiting >= found.shed_at else 0},
    }


def signed_headers(job: Job, signed: Signed, now: float) -> dict[str, str]:
    """Who signed, with what, for which request; and the day's limit. `now` is in epoch seconds."""
    found = request_id(job.parts[0].request_id) | engine_headers(signed.engine, now)
    return found if job.limit is None else found | limit_headers(job.limit, now)


def request_id(known: str) -> dict[str, str]:
    """The id of the usage row. The edge replaces `X-Request-Id` by its own."""
    return {"X-Request-Id": known, "X-Signgate-Request-Id": known}


def engine_headers(engine: EngineInfo, now: float) -> dict[str, str]:
    """What made a signature; the age in seconds is how long this version has been signing here."""
    headers = {
        "X-Signgate-Engine": engine.name,
        "X-Signgate-Engine-Version": engine.version,
        "X-Signgate-Engine-Age": str(max(int(now - engine.since.timestamp()), 0)),
    }
    if engine.script_hash:
        headers["X-Signgate-Script-Sha256"] = engine.script_hash
    if engine.browser_version:
        headers["X-Signgate-Browser-Version"] = engine.browser_version
    return headers


def limit_headers(limit: Limit, now: float) -> dict[str, str]:
    """A limit in both spellings that clients look for: seconds left, and epoch seconds."""
    reset = math.ceil(limit.reset_at)
    return {
        "RateLimit-Limit": str(limit.limit),
        "RateLimit-Remaining": str(limit.remaining),
        "RateLimit-Reset": str(max(reset - int(now), 0)),
        "X-RateLimit-Reset": str(reset),
    }


def _window(limits: Sequence[Limit], kinds: tuple[str, ...]) -> dict[str, Any] | None:
    found = [limit for limit in limits if limit.kind in kinds]
    if not found:
        return None
    tightest = min(found, key=lambda limit: (limit.remaining, limit.limit))
    reset = datetime.fromtimestamp(math.ceil(tightest.reset_at), UTC)
    return {
        "max": tightest.limit,
        "remaining": tightest.remaining,
        "reset_at": reset.isoformat().replace("+00:00", "Z"),
    }


def _browser(user_agent: str) -> tuple[str, str]:
    """What a page's `navigator` calls itself: `appCodeName` and `appVersion` (HTML Living Standard)."""
    name, slash, version = user_agent.partition("/")
    if name == _AGENT_NAME and slash and version:
        return name, version
    return _AGENT_NAME, _AGENT_VERSION
