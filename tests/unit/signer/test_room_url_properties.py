"""What holds for every room URL, by search for a counter-example."""

from typing import Final
from urllib.parse import parse_qsl, urlsplit

import httpx
from hypothesis import assume, example, given
from hypothesis import strategies as st

from services.signer.domain import Room, RoomKind
from services.signer.errors import RoomUrlError, RoomUrlReason
from services.signer.room_url import HOSTS, MAX_LENGTH, parse

# Pieces that URL parsers disagree about, so that the search meets them often.
PIECES: Final = st.sampled_from(
    [
        "https", "http", ":", "//", "/", "\\", "@", "?", "#", "&", "=", ";", "%", "%2f", "%00", "%40", "%ff",
        "[", "]", ".", "..", "www.", "m.", "tiktok.com", "webcast.tiktok.com", "evil.example", ":443", "name",
        "/live", "/share/live/", "/webcast/im/fetch/", "7300000000000000000", "room_id=", "msToken=",
        "sg_sig=", "X%2DBogus=", " ", "\t", "\n", "\x00", "\u3002", "\uff0e", "\uff20", "\u212a",
        "\u200b", "'", '"', "ä", "\ud800", "|",
    ]
)  # fmt: skip
MIXED: Final = st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=14).map("".join)
AUTHORITY: Final = st.lists(
    st.one_of(PIECES, st.sampled_from(["www.tiktok.com", "user", ":pw", "127.0.0.1"])), max_size=5
).map("".join)
HOSTILE: Final = st.builds(
    lambda authority, path, query: f"https://{authority}{path}?{query}",
    AUTHORITY,
    st.sampled_from(["/@name/live", "/share/live/7300000000000000000", "/webcast/im/fetch/", ""]),
    MIXED,
)

USERNAMES: Final = st.from_regex(r"[A-Za-z0-9_.]{1,23}[A-Za-z0-9_]", fullmatch=True)
ROOM_IDS: Final = st.integers(10**18, 2**63 - 1).map(str)
NAMES: Final = st.one_of(
    st.sampled_from(
        ["aid", "room_id", "msToken", "X-Bogus", "X-Gnarly", "_signature", "sg_sig", "a b", "ä;"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=4),
)
PARAMETERS: Final = st.lists(st.tuples(NAMES, st.text(st.characters(codec="utf-8"), max_size=6)), max_size=8)


def parsed(text: str) -> Room | None:
    """The room, or None when it is refused; any other exception fails the test."""
    try:
        return parse(text)
    except RoomUrlError as refused:
        RoomUrlReason(refused.reason)  # a ValueError for a reason that is not in the list
        return None


def assert_safe(room: Room) -> None:
    """The canonical form holds, and two independent parsers see the same host in it as we do."""
    assert parse(room.url) == room
    assert len(room.url) <= MAX_LENGTH
    assert room.url.isascii()
    assert room.url.isprintable()
    assert not set(room.url) & set(" \"'<>\\^`{|};#")
    ours = room.url.removeprefix("https://").split("/", 1)[0]
    assert ours in HOSTS
    standard, other = urlsplit(room.url), httpx.URL(room.url)
    for scheme, host, netloc in (
        (standard.scheme, standard.hostname, standard.netloc),
        (other.scheme, other.host, other.netloc.decode()),
    ):
        assert (scheme, host, netloc) == ("https", ours, ours)
    assert (standard.username, standard.port, standard.fragment) == (None, None, "")
    assert (other.userinfo, other.port, other.fragment) == (b"", None, "")
    assert str(other) == room.url  # a client sends what was signed, byte for byte


@given(st.text())
def test_any_text_gives_a_safe_room_or_a_refusal(text: str) -> None:
    room = parsed(text)
    if room is not None:
        assert_safe(room)


@given(st.one_of(MIXED, HOSTILE))
@example("https://www.tiktok.com/@name/live?\ud800")
@example("https://webcast.tiktok.com/webcast/im/fetch/?&&%6dsToken=1&a='")
def test_hostile_text_gives_a_safe_room_or_a_refusal(text: str) -> None:
    room = parsed(text)
    if room is not None:
        assert_safe(room)


@given(HOSTILE)
def test_what_any_parser_sees_on_another_host_is_refused(text: str) -> None:
    """The raw text, read by a parser that is not ours, must not name a host that we don't sign for."""
    views: list[str | None] = []
    try:
        views.append(urlsplit(text).hostname)
        views.append(httpx.URL(text).host)
    except (ValueError, httpx.InvalidURL, UnicodeError):
        pass
    if any(view not in HOSTS | {"tiktok.com"} for view in views):
        assert parsed(text) is None


@given(USERNAMES, st.sampled_from(["www.", "m.", ""]), st.sampled_from(["", "/", "?a=1", "/?a=b#c"]))
def test_every_username_form_means_the_same_room(name: str, host: str, tail: str) -> None:
    room = parse(f"https://{host}tiktok.com/@{name}/live{tail}")
    assert room == parse(f"@{name}")
    assert (room.kind, room.username) == (RoomKind.USERNAME, name.lower())
    assert_safe(room)


@given(ROOM_IDS, st.sampled_from(["www.", "m.", ""]), st.sampled_from(["", "/", "?a=1", "/?a=b#c"]))
def test_every_room_id_form_means_the_same_room(room_id: str, host: str, tail: str) -> None:
    room = parse(f"https://{host}tiktok.com/share/live/{room_id}{tail}")
    assert room == parse(room_id)
    assert (room.kind, room.room_id) == (RoomKind.ROOM_ID, room_id)
    assert_safe(room)


@given(PARAMETERS, st.sampled_from(["im/fetch/", "room/info", "room/check_alive/"]))
def test_an_endpoint_keeps_the_meaning_and_order_of_its_query(
    parameters: list[tuple[str, str]], endpoint: str
) -> None:
    """Read by the standard library, the query is the same before and after, less the signatures."""
    query = str(httpx.QueryParams(tuple(parameters)))
    room = parsed(f"https://webcast.tiktok.com/webcast/{endpoint}?{query}")
    assume(room is not None)
    assert room is not None
    assert_safe(room)
    signatures = {"x-bogus", "x-gnarly", "mstoken", "_signature"}
    kept = [
        (name, value)
        for name, value in parse_qsl(query, keep_blank_values=True)
        if name.lower() not in signatures and not name.lower().startswith("sg_")
    ]
    assert parse_qsl(urlsplit(room.url).query, keep_blank_values=True) == kept


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_spaces_around_change_nothing(text: str) -> None:
    assert parsed(f"  {text} ") == parsed(text)
