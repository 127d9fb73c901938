"""The stand-in script's digest, and engines that run it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from servicekit.clock import SystemClock
from services.signer.domain import Signed, SignRequest
from services.signer.engines.websdk import Call, WebSdkConfig, WebSdkEngine
from services.signer.room_url import parse

SCRIPT = Path(__file__).with_name("standin.js")
CALL = Call("window.signgateStandIn.sign")
CHROMIUM = Path("/usr/bin/chromium")
ENDPOINT = "https://webcast.tiktok.com/webcast/im/fetch/?room_id=7300000000000000000"
_KEY, _PRIME = 0x5167A7E5, 0x01000193


def digest(text: str) -> str:
    """What the stand-in answers for a text."""
    lanes = []
    for seed in (1, 2, 3):
        hashed = _KEY ^ seed
        for character in text:
            hashed = ((hashed ^ ord(character)) * _PRIME) & 0xFFFFFFFF
        lanes.append(f"{hashed:08x}")
    return "".join(lanes)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def config(script: Path = SCRIPT, **changes: Any) -> WebSdkConfig:
    """One page unless told otherwise; no sandbox, for tests may run as root."""
    told: dict[str, Any] = {"call": CALL, "pages": 1, "sandbox": False, "chromium": CHROMIUM} | changes
    return WebSdkConfig(script, told.pop("sha256", sha256(script)), **told)


@asynccontextmanager
async def websdk(settings: WebSdkConfig | None = None) -> AsyncIterator[WebSdkEngine]:
    """A started engine whose first canary held."""
    engine = WebSdkEngine(settings or config(), SystemClock())
    await engine.start()
    try:
        status = await engine.canary()
        assert status.ready, status.not_ready_reason
        yield engine
    finally:
        await engine.stop()


def ask(what: str = "", *, seconds: float | None = 30.0, **changes: Any) -> SignRequest:
    """A request whose URL tells the stand-in what to do."""
    url = f"{ENDPOINT}&standin={what}" if what else ENDPOINT
    deadline = None if seconds is None else SystemClock().monotonic() + seconds
    return SignRequest(parse(url), str(uuid4()), deadline=deadline, **changes)


def held(result: object, request: SignRequest) -> bool:
    """Whether a result is the right signature for its request."""
    if not isinstance(result, Signed):
        return False
    unsigned, _, value = result.signed_url.rpartition("&X-Bogus=")
    return value == result.tokens.get("X-Bogus") == digest(
        unsigned.partition("?")[2]
    ) and unsigned.startswith(request.room.url)
