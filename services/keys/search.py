"""Which keys a list shows, page by page."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from servicekit.errors import FieldViolation
from services.keys import paging
from services.keys.domain import NAME_LENGTH, Key, Page
from services.keys.errors import ValidationFailed
from services.keys.metadata import Pairs, check_external_id, check_pair, pairs_of

if TYPE_CHECKING:
    from services.keys.ports import Unit

MAX_PAIRS: Final = 8


@dataclass(frozen=True, slots=True)
class Search:
    """What a key must have to be listed: all of it. Empty members admit any key."""

    external_id: str = ""
    metadata: Pairs = ()
    name_contains: str = ""
    include_inactive: bool = False

    @property
    def mark(self) -> bytes:
        """Ties a page token to its filters; empty without one."""
        filters = (self.external_id, self.metadata, self.name_contains)
        return hashlib.sha256(json.dumps(filters).encode()).digest()[:8] if any(filters) else b""


def checked_search(
    external_id: str, metadata_filter: Iterable[str], name_contains: str, *, include_inactive: bool
) -> Search:
    """The filters of a request. Raises `ValidationFailed` naming all that is wrong."""
    problems: list[FieldViolation] = []
    check_external_id(external_id, problems)
    metadata: dict[str, str] = {}
    for place, pair in enumerate(metadata_filter):
        field = f"metadata_filter[{place}]"
        name, equals, value = pair.partition("=")
        if not equals:
            problems.append(FieldViolation(field, "must read name=value"))
        elif name in metadata:
            problems.append(FieldViolation(field, "names a pair that stands before it"))
        else:
            metadata[name] = value
            check_pair(field, name, value, problems)
    if len(metadata) > MAX_PAIRS:
        problems.append(FieldViolation("metadata_filter", f"at most {MAX_PAIRS} pairs"))
    if len(name_contains) > NAME_LENGTH or not name_contains.isprintable():
        wrong = f"must have at most {NAME_LENGTH} characters and no control characters"
        problems.append(FieldViolation("name_contains", wrong))
    if problems:
        raise ValidationFailed(problems)
    # As names are stored.
    part = unicodedata.normalize("NFC", name_contains)
    return Search(external_id, pairs_of(metadata), part, include_inactive)


@dataclass(frozen=True, slots=True)
class Paging:
    """Where in a list a page stands: how many keys at most, and where the page before ended."""

    size: int
    after: Page | None

    @classmethod
    def of(cls, search: Search, size: int, token: str) -> Paging:
        """Raises `ValidationFailed`, `PageTokenInvalid` (also for a token of another search)."""
        return cls(paging.page_size(size), paging.decode(token, search.mark))

    async def read(self, unit: Unit, search: Search, now: datetime) -> tuple[Sequence[Key], str]:
        """The keys, newest first, and the next page's token."""
        keys = await unit.list(search, self.after, self.size + 1, None if search.include_inactive else now)
        more = len(keys) > self.size
        keys = keys[: self.size]
        return keys, paging.encode(Page(keys[-1].created_at, keys[-1].id), search.mark) if more else ""
