"""Names that users give to what is theirs, such as a second factor."""

from __future__ import annotations

from typing import Final

from servicekit.texts import checked_name
from services.auth.errors import ValidationFailed

LONGEST: Final = 64
"""Characters of a name."""


def given_name(field: str, text: str) -> str:
    """The name in canonical form, "" if none is given. Raises `ValidationFailed`."""
    if not text:
        return ""
    try:
        return checked_name(text, LONGEST)
    except ValueError as error:
        raise ValidationFailed(field, str(error)) from None
