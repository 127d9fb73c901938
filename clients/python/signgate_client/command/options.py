"""Values that options take."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

import click

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST: Final = 100_000


class Span(click.ParamType[timedelta]):
    """A whole number of seconds, minutes, hours or days: `90s`, `15m`, `2h`, `30d`."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d{1,9})([smhd])", str(value).strip(), re.ASCII)
        if not found:
            self.fail(f"{value!r} is no span of time: write 90s, 15m, 2h or 30d", param, ctx)
        span = timedelta(**{_UNITS[found[2]]: int(found[1])}) if int(found[1]) else timedelta()
        if span.days > _LONGEST:
            self.fail(f"{value!r} is too long", param, ctx)
        return span


class Pair(click.ParamType[tuple[str, str]]):
    """A name and a value: `team=search`. Only the first `=` parts them."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, rest = str(value).partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is not a pair: write name=value", param, ctx)
        return name, rest


SPAN: Final = Span()
PAIR: Final = Pair()
