"""Device profiles: what a page can see of the machine, by one name. docs/engines.md lists them.

A profile is one consistent whole, because scripts look at several of these together. The browser's
own version is filled in, so that what it claims to be and what it can do agree.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9\-]{0,39}")


@dataclass(frozen=True, slots=True)
class Profile:
    """One device. `{major}` in `user_agent` is the browser's major version.

    `width` and `height` are the screen's, in CSS pixels; `platform` is `navigator.platform`,
    `system` the name of the operating system in client hints.
    """

    name: str
    user_agent: str
    platform: str
    system: str
    locale: str = "en-US"
    time_zone: str = "America/New_York"
    width: int = 1920
    height: int = 1080
    scale: float = 1.0
    mobile: bool = False

    def agent(self, browser_version: str) -> str:
        """The user agent for a browser of this version, as in 140.0.1234.5."""
        return self.user_agent.replace("{major}", browser_version.partition(".")[0])

    def override(self, browser_version: str) -> dict[str, Any]:
        """For `Emulation.setUserAgentOverride` of the Chrome DevTools Protocol."""
        major = browser_version.partition(".")[0]
        brands = [
            {"brand": "Chromium", "version": major},
            {"brand": "Google Chrome", "version": major},
            {"brand": "Not=A?Brand", "version": "24"},
        ]
        return {
            "userAgent": self.agent(browser_version),
            "acceptLanguage": self.locale,
            "platform": self.platform,
            "userAgentMetadata": {
                "brands": brands,
                "fullVersionList": [brand | {"version": f"{brand['version']}.0.0.0"} for brand in brands],
                "platform": self.system,
                "platformVersion": "",
                "architecture": "" if self.mobile else "x86",
                "bitness": "" if self.mobile else "64",
                "model": "",
                "mobile": self.mobile,
                "wow64": False,
            },
        }


_WEBKIT: Final = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0"
PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            Profile(
                "desktop-linux",
                f"Mozilla/5.0 (X11; Linux x86_64) {_WEBKIT} Safari/537.36",
                "Linux x86_64",
                "Linux",
            ),
            Profile(
                "desktop-windows",
                f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {_WEBKIT} Safari/537.36",
                "Win32",
                "Windows",
            ),
            Profile(
                "desktop-mac",
                f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {_WEBKIT} Safari/537.36",
                "MacIntel",
                "macOS",
                time_zone="America/Los_Angeles",
                width=1512,
                height=982,
                scale=2.0,
            ),
            Profile(
                "phone-android",
                f"Mozilla/5.0 (Linux; Android 10; K) {_WEBKIT} Mobile Safari/537.36",
                "Linux armv81",
                "Android",
                width=412,
                height=915,
                scale=2.625,
                mobile=True,
            ),
        )
    }
)
"""Those that come with Signgate."""


def load(path: Path | None) -> Mapping[str, Profile]:
    """The profiles that come with Signgate, and those of a TOML file: a table each, by name.

    Raises `ValueError`, saying what is wrong with the file.
    """
    if path is None:
        return PROFILES
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"the profiles can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"the profiles are no TOML: {error}") from error
    return {**PROFILES, **{name: _profile(name, table) for name, table in tables.items()}}


def _profile(name: str, table: Any) -> Profile:
    kinds = {field.name: str(field.type) for field in fields(Profile) if field.name != "name"}
    if _NAME.fullmatch(name) is None or not isinstance(table, dict):
        raise ValueError("a profile is a table with a name of lower-case letters, digits and dashes")
    for key, value in table.items():
        if key not in kinds:
            raise ValueError(f"profile {name}: there is no {key}; there are {', '.join(kinds)}")
        expected: dict[str, tuple[type, ...]] = {
            "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,),
        }  # fmt: skip
        if not isinstance(value, expected[kinds[key]]) or (isinstance(value, bool) and kinds[key] != "bool"):
            raise ValueError(f"profile {name}: {key} must be of the type {kinds[key]}")
    try:
        return Profile(name, **table)
    except TypeError:
        raise ValueError(f"profile {name}: needs user_agent, platform and system") from None
