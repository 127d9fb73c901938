"""One parser for every form in which people paste a LIVE room. docs/room-urls.md is its manual.

    @name
    https://www.tiktok.com/@name/live            (or tiktok.com, m.tiktok.com; any query)
        → kind USERNAME    https://www.tiktok.com/@name/live
    7300000000000000000
    https://m.tiktok.com/share/live/7300000000000000000
        → kind ROOM_ID     https://m.tiktok.com/share/live/7300000000000000000
    https://webcast.tiktok.com/webcast/im/fetch/?aid=1988&room_id=7300000000000000000
        → kind WEBCAST     the same, its query in order, older signatures taken out

Guarantees, held by tests/unit/signer/test_room_url_properties.py:

* `parse(text)` returns a `Room` or raises `RoomUrlError`, whatever the text;
* the result's `url` is printable ASCII, https, on a host of `HOSTS` with no port and no user
  info, at most `MAX_LENGTH` long, and means the same to every URL parser;
* `parse(room.url) == room`.

The host is compared whole with a closed list, never by its ending, so no look-alike passes.
What is not understood is refused, not repaired: two programs that repair a URL differently is how
a signature for one address gets used on another.
"""

from __future__ import annotations

import re
from typing import Final

from services.signer.domain import Room, RoomKind
from services.signer.errors import RoomUrlError, RoomUrlReason
from services.signer.room_query import check_room_id, clean_query

MAX_LENGTH: Final = 2048
"""Characters, of what is pasted and of the canonical URL alike."""

_WEB_HOST: Final = "www.tiktok.com"
_SHARE_HOST: Final = "m.tiktok.com"
_PAGE_HOSTS: Final = frozenset({_WEB_HOST, _SHARE_HOST, "tiktok.com"})
_WEBCAST_HOSTS: Final = frozenset({"webcast.tiktok.com", "webcast.us.tiktok.com"})
_SHORT_LINK_HOSTS: Final = frozenset({"vm.tiktok.com", "vt.tiktok.com"})
HOSTS: Final = frozenset({_WEB_HOST, _SHARE_HOST}) | _WEBCAST_HOSTS
"""The hosts that a canonical URL can be on."""

# The authority ends where the first parser of any kind would end it: at / ? # or \.
_URL: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*):(?P<slashes>//)?(?P<authority>[^/?#\\]*)"
    r"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#.*)?"
)
# A user's page as it is in canonical form, which most callers send: nothing is left to look at.
_CANONICAL_PAGE: Final = re.compile(
    rf"https://{re.escape(_WEB_HOST)}/@(?P<name>[a-z0-9_.]{{1,23}}[a-z0-9_])/live"
)
_USERNAME: Final = re.compile(r"[A-Za-z0-9_.]{1,23}[A-Za-z0-9_]")
_ENDPOINT_PATH: Final = re.compile(r"/webcast(?:/[A-Za-z0-9_\-]+)+/?")
_IPV4: Final = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}\.?")

_Why = RoomUrlReason


def parse(text: str) -> Room:
    """The room that `text` names. Spaces around it are ignored.

    Raises `RoomUrlError`, whose `reason` is a `RoomUrlReason`, and nothing else.
    """
    if (page := _CANONICAL_PAGE.fullmatch(text)) is not None:
        return Room(RoomKind.USERNAME, text, page.group("name"), "")
    if len(text) > MAX_LENGTH:
        raise RoomUrlError(_Why.TOO_LONG, f"A room URL has at most {MAX_LENGTH} characters.")
    text = text.strip(" ")
    if not text:
        raise RoomUrlError(_Why.EMPTY, "No room was given. Give a LIVE URL, an @name or a room id.")
    if not text.isprintable():
        raise RoomUrlError(
            _Why.CONTROL_CHARACTER,
            "The room URL holds a control, line break or invisible character. Paste it again without.",
        )
    if text[0] == "@":
        return _username_room(text[1:])
    if text[0] in "0123456789" and text.isdigit():
        return _id_room(text)
    return _parse_url(text)


def _parse_url(text: str) -> Room:
    match = _URL.fullmatch(text)
    if match is None:
        raise _no_url(text)
    scheme, slashes, authority, path, query = match.group("scheme", "slashes", "authority", "path", "query")
    if scheme.lower() != "https" or not slashes:
        raise RoomUrlError(_Why.SCHEME, "A room URL begins with https:// and nothing else.")
    if "\\" in path:
        raise RoomUrlError(_Why.BACKSLASH, "The room URL holds a backslash. Write / where it stands.")
    # Unicode's lower case would turn the Kelvin sign into a k.
    host = authority.lower() if authority.isascii() else authority
    if host in _PAGE_HOSTS:
        return _parse_page(path)
    if host in _WEBCAST_HOSTS:
        return _parse_endpoint(host, path, query)
    raise _no_host(host)


def _parse_page(path: str) -> Room:
    if path[:4] == "/%40":  # some applications encode the @ of what they share
        path = "/@" + path[4:]
    _check_path(path)
    segments = path[1:-1].split("/") if path[-1:] == "/" else path[1:].split("/")
    match segments:
        case [name, "live"] if name[:1] == "@":
            return _username_room(name[1:])
        case ["share", "live", room_id]:
            return _id_room(room_id)
        case ["t", _]:
            raise _short_link()
        case [name] if name[:1] == "@":
            raise RoomUrlError(
                _Why.NOT_LIVE, "That is a profile. Its LIVE room is the same URL with /live at the end."
            )
        case _:
            raise RoomUrlError(
                _Why.NOT_LIVE,
                "That page is no LIVE room. Give https://www.tiktok.com/@name/live or a share link.",
            )


def _parse_endpoint(host: str, path: str, query: str | None) -> Room:
    if _ENDPOINT_PATH.fullmatch(path) is None:
        _check_path(path)
        raise RoomUrlError(
            _Why.NOT_LIVE, "That is no webcast endpoint: its path is /webcast/ and the endpoint's name."
        )
    room_id = ""
    url = f"https://{host}{path}"
    if query:
        query, room_id = clean_query(query)
        if query:
            url = f"{url}?{query}"
        if len(url) > MAX_LENGTH:
            raise RoomUrlError(
                _Why.TOO_LONG, f"Percent-encoded, the room URL has more than {MAX_LENGTH} characters."
            )
    return Room(RoomKind.WEBCAST, url, "", room_id)


def _username_room(name: str) -> Room:
    if _USERNAME.fullmatch(name) is None:
        if not name.isascii():
            raise RoomUrlError(
                _Why.CHARACTER, "The username holds a letter that only looks like one of a-z, 0-9, _ or ."
            )
        raise RoomUrlError(
            _Why.USERNAME,
            "A username has 2 to 24 letters, digits, underscores and periods, with no period at the end.",
        )
    name = name.lower()  # the platform's names are lower case, its lookup ignores case
    return Room(RoomKind.USERNAME, f"https://{_WEB_HOST}/@{name}/live", name, "")


def _id_room(room_id: str) -> Room:
    check_room_id(room_id)
    return Room(RoomKind.ROOM_ID, f"https://{_SHARE_HOST}/share/live/{room_id}", "", room_id)


def _check_path(path: str) -> None:
    if not path.isascii() or " " in path:
        raise RoomUrlError(
            _Why.CHARACTER, "The URL's path holds a space or a letter outside ASCII. Paste it again."
        )
    if "%" in path or ";" in path or "//" in path or "/./" in f"{path}/" or "/../" in f"{path}/":
        raise RoomUrlError(
            _Why.PATH, "The URL's path holds // or ; or a dot segment or a percent sign. Write it plainly."
        )


def _no_url(text: str) -> RoomUrlError:
    if "." in text or "/" in text:
        return RoomUrlError(_Why.SCHEME, "A room URL begins with https://. Write it in front.")
    return RoomUrlError(
        _Why.UNRECOGNISED, "That names no LIVE room. Give a LIVE URL, an @name or a 19-digit room id."
    )


def _no_host(host: str) -> RoomUrlError:
    """Why this authority, in lower case, is none of the platform's hosts."""
    if "@" in host:
        return RoomUrlError(_Why.USERINFO, "The URL holds user info (an @ before the host). Remove it.")
    if host[:1] == "[" or _IPV4.fullmatch(host.partition(":")[0]):
        return RoomUrlError(
            _Why.IP_LITERAL, "The URL's host is an IP address. Only LIVE rooms are signed for."
        )
    if ":" in host:
        return RoomUrlError(_Why.PORT, "The URL names a port. Remove it, even if it is 443.")
    if host in _SHORT_LINK_HOSTS:
        return _short_link()
    return RoomUrlError(
        _Why.HOST,
        "The URL's host is none that LIVE rooms are on:"
        " www.tiktok.com, m.tiktok.com, tiktok.com or webcast.tiktok.com.",
    )


def _short_link() -> RoomUrlError:
    return RoomUrlError(
        _Why.SHORT_LINK,
        "That is a short link, and only the platform knows where it leads."
        " Open it in a browser and give the URL that it shows.",
    )
