"""Plans and overrides as administrators see them. `None` of a limit: as it is, or as the plan."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from services.quota.domain import Pool


@dataclass(frozen=True, slots=True)
class Limits:
    """Signatures a UTC day; a minute, refilled evenly; and at once."""

    daily: int | None = None
    per_minute: int | None = None
    burst: int | None = None


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """A pool's plan: it has all three limits."""

    pool: Pool
    limits: Limits
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class OverrideRecord:
    """What one user has in a pool instead. `updated_at` is `None` before it is written."""

    user_id: UUID
    pool: Pool
    limits: Limits
    expires_at: datetime | None = None
    reason: str = ""
    updated_at: datetime | None = None


class Place(NamedTuple):
    """Where a page ended: the next one begins after it."""

    user_id: UUID
    pool: str
