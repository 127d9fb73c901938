"""Alerts as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal, NamedTuple
from uuid import UUID

State = Literal["pending", "sent", "failed", "off"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """How a user wants to be told. `webhook_url` of "": by no webhook."""

    mail: bool = True
    webhook_url: str = ""


@dataclass(frozen=True, slots=True)
class Alert:
    """One that was made. `threshold` is per cent of `daily_limit`."""

    id: UUID
    pool: str
    date: date
    threshold: int
    used: int
    daily_limit: int
    created_at: datetime
    mail: State
    webhook: State


@dataclass(frozen=True, slots=True)
class Due:
    """One that is to be delivered now: by mail if there is an address, by webhook if there is a URL."""

    id: UUID
    user_id: UUID
    pool: str
    date: date
    threshold: int
    used: int
    daily_limit: int
    created_at: datetime
    attempts: int
    email: str | None = field(repr=False)
    webhook_url: str | None = field(repr=False)
    webhook_secret: str | None = field(repr=False)


class Outcome(NamedTuple):
    """What an attempt came to; `None`: nothing new on that way."""

    mail: State | None = None
    webhook: State | None = None
