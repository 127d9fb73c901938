"""What the operator says about the browser, the script and its function."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from services.signer.engines.websdk.profiles import PROFILES, Profile

Argument = Literal["query", "url", "request"]
_FUNCTION: Final = re.compile(r"[A-Za-z_$][\w$]{0,63}(?:\.[A-Za-z_$][\w$]{0,63}){0,7}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]{0,63}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ORIGIN: Final = re.compile(
    r"https://[a-z0-9](?:[a-z0-9\-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9\-]*[a-z0-9])?)+"
)
_BROWSER: Final = re.compile(r"wss?://(?:[A-Za-z0-9.\-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}/?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Call:
    """How the script's function is called, and what its answer is.

    `function` is a path from the global object, such as `window.signer.sign`; it is looked up, never
    evaluated. `argument`: `query` passes what stands after the URL's `?`, `url` the whole URL,
    `request` an object with `url`, `query`, `method`, `payload` and `userAgent`. The answer, or what
    the promise it is resolves to, is an object of parameters by name; or, when `result` is set, one
    text: the parameter of that name.
    """

    function: str
    argument: Argument = "query"
    result: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a function or a name that can't be one."""
        if _FUNCTION.fullmatch(self.function) is None:
            raise ValueError("the function must be a path of names, such as window.signer.sign")
        if self.argument not in {"query", "url", "request"}:
            raise ValueError("the argument must be query, url or request")
        if self.result and _NAME.fullmatch(self.result) is None:
            raise ValueError("the result's name must be a parameter's name")


PRESETS: Final[Mapping[str, Call]] = MappingProxyType(
    {"frontier-sign": Call("window.byted_acrawler.frontierSign", "query")}
)
"""Ways of calling that operators need not spell out."""


@dataclass(frozen=True, slots=True)
class WebSdkConfig:
    """See docs/engines.md. Times are seconds.

    `sha256` is the script's, in lower-case hex: another file is refused. `origin` is whose blank
    document the script runs in. `required` names parameters without which an answer is none.
    `call_timeout` bounds one call for a whole list; `member_timeout` one member whose answer is a
    promise. A page is replaced after `recycle_count` signatures, `recycle_age` or with more than
    `recycle_heap` bytes of JavaScript heap. At most `max_waiting` requests wait; `max_list` is the
    most that one call signs. `browser_url`: the Playwright server (ws:// or wss://) whose browser is used;
    "" starts `chromium` here, with Chromium's own sandbox unless `sandbox` is false. Root can't use it.
    """

    script: Path
    sha256: str
    call: Call
    origin: str = "https://www.tiktok.com"
    profile: Profile = field(default_factory=lambda: PROFILES["desktop-linux"])
    required: tuple[str, ...] = ()
    browser_url: str = ""
    chromium: Path = Path("/usr/bin/chromium")
    sandbox: bool = True
    pages: int = 2
    max_list: int = 64
    max_waiting: int = 1024
    call_timeout: float = 1.5
    member_timeout: float = 1.0
    load_timeout: float = 20.0
    recycle_count: int = 50_000
    recycle_age: float = 1800.0
    recycle_heap: int = 128 * 1024 * 1024

    def __post_init__(self) -> None:
        """Raise ValueError for what contradicts itself."""
        if _SHA256.fullmatch(self.sha256) is None:
            raise ValueError("the script's SHA-256 must be 64 hexadecimal digits in lower case")
        if _ORIGIN.fullmatch(self.origin) is None:
            raise ValueError("the origin must read https://host, with no port and no path")
        if self.browser_url and _BROWSER.fullmatch(self.browser_url) is None:
            raise ValueError("the browser's URL must read ws://host:port or wss://host:port")
        if not (self.pages >= 1 and 1 <= self.max_list <= self.max_waiting):
            raise ValueError("need pages >= 1 and 1 <= max_list <= max_waiting")
        if not 0 < self.member_timeout < self.call_timeout:
            raise ValueError("need 0 < member_timeout < call_timeout")
        if self.recycle_count < self.max_list or self.recycle_age <= 0 or self.recycle_heap <= 0:
            raise ValueError("a page must live for one list at least")
