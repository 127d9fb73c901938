"""The query of a webcast endpoint, brought into canonical form for `room_url`.

The order of the parameters stays, and their values stay as they were written. What changes: older
signatures go, empty parameters go, characters that parsers treat differently are percent-encoded,
and letters, digits, `-`, `.`, `_` and `~` that stand percent-encoded in a name are decoded (so that
no spelling of a name hides it).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from services.signer.errors import RoomUrlError, RoomUrlReason

_STRIPPED: Final = re.compile(
    r"&(?:x-bogus|x-gnarly|mstoken|_signature|sg_[^=&]*)(?![^=&])[^&]*", re.ASCII | re.IGNORECASE
)
"""Parameters of an older signature: those of the platform's pages, and Signgate's own."""

_ROOM_ID: Final = re.compile(r"[1-9][0-9]{18}")
_ROOM_ID_MAX: Final = "9223372036854775807"
"""Room ids are positive signed 64-bit numbers."""
_ROOM_ID_PARAMETER: Final = re.compile(r"&room_id(?![^=&])=?([^&]*)")

# RFC 3986's query characters without `;`, which some parsers take for `&`, and without `'`, which
# browsers encode: so a browser sends the canonical URL as it stands.
_SAFE: Final = r"A-Za-z0-9\-._~!$&()*+,=:@/?"
_PLAIN: Final = re.compile(f"(?:[{_SAFE}]++|%[2-6][0-9A-Fa-f]|%7[0-9A-Ea-e])*+")
"""What needs no look at its percent-encoding: safe characters, and printable ASCII encoded."""
_UNSAFE: Final = re.compile(f"[^{_SAFE}%]+")
_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ENCODED_CONTROL: Final = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")
_NAME_WITH_PERCENT: Final = re.compile(r"&[^=&%]*%[^=&]*")
_ENCODED_UNRESERVED: Final = re.compile(
    r"%(?:2[DdEe]|3[0-9]|4[1-9A-Fa-f]|5[0-9Aa]|5[Ff]|6[1-9A-Fa-f]|7[0-9AaEe])"
)

_Why = RoomUrlReason


def clean_query(query: str) -> tuple[str, str]:
    """The query in canonical form, and its `room_id`, or "" when it names none.

    Raises `RoomUrlError`.
    """
    if _PLAIN.fullmatch(query) is None:
        _check_percent_encoding(query)
        query = _UNSAFE.sub(_percent_encode, query)
    parameters = f"&{query}"  # so that every parameter has an & before it
    if _NAME_WITH_PERCENT.search(parameters):
        parameters = _NAME_WITH_PERCENT.sub(_decode_name, parameters)
    parameters = _STRIPPED.sub("", parameters)
    if "&&" in parameters or parameters[-1:] == "&":
        parameters = "".join(f"&{parameter}" for parameter in parameters.split("&") if parameter)
    # An endpoint may be asked with no room yet, and then clients send the parameter empty.
    room_id, *more = _ROOM_ID_PARAMETER.findall(parameters) or [""]
    if more:
        raise RoomUrlError(_Why.DUPLICATE_PARAMETER, "The URL names room_id more than once. Leave one.")
    if room_id:
        check_room_id(room_id)
    return parameters[1:], room_id


def check_room_id(room_id: str) -> None:
    """Raise `RoomUrlError` (ROOM_URL_ROOM_ID) unless this is a room id."""
    if _ROOM_ID.fullmatch(room_id) is None or room_id > _ROOM_ID_MAX:
        raise RoomUrlError(
            _Why.ROOM_ID, f"A room id has 19 digits, from 1000000000000000000 to {_ROOM_ID_MAX}."
        )


def _check_percent_encoding(query: str) -> None:
    if _BAD_PERCENT.search(query):
        raise RoomUrlError(
            _Why.PERCENT_ENCODING, "A % in the query must be followed by two hexadecimal digits."
        )
    if _ENCODED_CONTROL.search(query):
        raise RoomUrlError(_Why.CONTROL_CHARACTER, "The query holds a percent-encoded control character.")
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        raise RoomUrlError(
            _Why.PERCENT_ENCODING, "The query's percent-encoded bytes are not UTF-8."
        ) from None


def _percent_encode(match: re.Match[str]) -> str:
    return quote(match[0], safe="")


def _decode_name(match: re.Match[str]) -> str:
    return _ENCODED_UNRESERVED.sub(lambda code: chr(int(code[0][1:], 16)), match[0])
