"""Every form of a room URL, right and wrong, by example."""

import re
from pathlib import Path

import pytest

from services.signer.domain import Room, RoomKind
from services.signer.errors import RoomUrlError
from services.signer.errors import RoomUrlReason as Why
from services.signer.room_url import MAX_LENGTH, parse

ID = "7300000000000000000"
NAME_URL = "https://www.tiktok.com/@some.name_1/live"
ID_URL = f"https://m.tiktok.com/share/live/{ID}"
FETCH = "https://webcast.tiktok.com/webcast/im/fetch/"

NAME_FORMS = [
    "@some.name_1",
    "@Some.NAME_1",
    "  @some.name_1 ",
    NAME_URL,
    f" {NAME_URL} ",
    f"{NAME_URL}/",
    f"{NAME_URL}?",
    f"{NAME_URL}?enter_from_merge=others_photo&enter_method=x",
    f"{NAME_URL}/?is_from_webapp=1#comments",
    f"{NAME_URL}#@evil.example/",
    f"{NAME_URL}?next=https://evil.example/@other/live",
    "https://tiktok.com/@some.name_1/live",
    "https://m.tiktok.com/@some.name_1/live",
    "HTTPS://WWW.TikTok.COM/@some.name_1/live",
    "https://www.tiktok.com/%40some.name_1/live",
]


@pytest.mark.parametrize("text", NAME_FORMS)
def test_every_form_of_a_username_gives_one_room(text: str) -> None:
    assert parse(text) == Room(RoomKind.USERNAME, NAME_URL, "some.name_1", "")


ID_FORMS = [
    ID,
    f" {ID} ",
    ID_URL,
    f"{ID_URL}/",
    f"{ID_URL}?share_app_id=1233&u_code=x",
    f"https://www.tiktok.com/share/live/{ID}",
    f"https://tiktok.com/share/live/{ID}/?a=b#c",
]


@pytest.mark.parametrize("text", ID_FORMS)
def test_every_form_of_a_room_id_gives_one_room(text: str) -> None:
    assert parse(text) == Room(RoomKind.ROOM_ID, ID_URL, "", ID)


WEBCAST_FORMS = [
    # query kept in order
    (f"{FETCH}?b=2&room_id={ID}&a=1", f"{FETCH}?b=2&room_id={ID}&a=1", ID),
    ("https://webcast.tiktok.com/webcast/room/info", "https://webcast.tiktok.com/webcast/room/info", ""),
    (
        "https://webcast.us.tiktok.com/webcast/feed/?a=1",
        "https://webcast.us.tiktok.com/webcast/feed/?a=1",
        "",
    ),
    ("https://WEBCAST.tiktok.com/webcast/feed/?a=B", "https://webcast.tiktok.com/webcast/feed/?a=B", ""),
    # older signatures go, wherever they stand and however they are spelt
    (f"{FETCH}?X-Bogus=1&a=1&msToken=x=y&b=2&X-Gnarly=z&_signature=q", f"{FETCH}?a=1&b=2", ""),
    (f"{FETCH}?msToken=x", FETCH, ""),
    (f"{FETCH}?msToken", FETCH, ""),
    (f"{FETCH}?MSTOKEN=x&x-bogus=y&a=1", f"{FETCH}?a=1", ""),
    (f"{FETCH}?%6DsToken=x&X%2dBogus=y&a=1", f"{FETCH}?a=1", ""),
    (f"{FETCH}?sg_v=1&a=1&sg_exp=1&sg_sig=x&SG_kid=1&s%67_x=1", f"{FETCH}?a=1", ""),
    # names that only begin alike stay
    (f"{FETCH}?msTokens=x&X-Bogus2=y&sgx=1", f"{FETCH}?msTokens=x&X-Bogus2=y&sgx=1", ""),
    (f"{FETCH}?a=msToken&b=sg_sig", f"{FETCH}?a=msToken&b=sg_sig", ""),
    # empty parameters and an empty query go; a name without a value and an empty value stay
    (f"{FETCH}?&&a=1&&b=&c&", f"{FETCH}?a=1&b=&c", ""),
    (f"{FETCH}?", FETCH, ""),
    (f"{FETCH}?&", FETCH, ""),
    # what parsers treat differently is encoded; what is encoded stays as it was written
    (f"{FETCH}?a=5.0 (X11; Linux)&b='", f"{FETCH}?a=5.0%20(X11%3B%20Linux)&b=%27", ""),
    (f'{FETCH}?a="<>|\\^`{{}}[]', f"{FETCH}?a=%22%3C%3E%7C%5C%5E%60%7B%7D%5B%5D", ""),
    (f"{FETCH}?a=%2f%2F%41", f"{FETCH}?a=%2f%2F%41", ""),
    (f"{FETCH}?a=ä", f"{FETCH}?a=%C3%A4", ""),
    (f"{FETCH}?a=%C3%A4%F0%9F%98%80", f"{FETCH}?a=%C3%A4%F0%9F%98%80", ""),
    (f"{FETCH}?a=1;msToken=x", f"{FETCH}?a=1%3BmsToken=x", ""),
    # duplicates stay, in order
    (f"{FETCH}?a=1&a=2", f"{FETCH}?a=1&a=2", ""),
    # the room id: absent, empty, or with its name percent-encoded
    (f"{FETCH}?room_id=&a=1", f"{FETCH}?room_id=&a=1", ""),
    (f"{FETCH}?room%5Fid={ID}", f"{FETCH}?room_id={ID}", ID),
    (f"{FETCH}?xroom_id=5&room_ids=6&room_id={ID}", f"{FETCH}?xroom_id=5&room_ids=6&room_id={ID}", ID),
    (f"{FETCH}?a=1#room_id=9", f"{FETCH}?a=1", ""),
]


@pytest.mark.parametrize(("text", "url", "room_id"), WEBCAST_FORMS)
def test_a_webcast_endpoint_keeps_its_query_and_loses_older_signatures(
    text: str, url: str, room_id: str
) -> None:
    assert parse(text) == Room(RoomKind.WEBCAST, url, "", room_id)


REFUSED = [
    ("", Why.EMPTY),
    ("   ", Why.EMPTY),
    ("@" + "a" * MAX_LENGTH, Why.TOO_LONG),
    (f"{FETCH}?a=" + "ä" * 600, Why.TOO_LONG),  # short as pasted, too long once encoded
    # control and invisible characters, raw and percent-encoded
    (f"{NAME_URL}\n", Why.CONTROL_CHARACTER),
    ("https://www.tiktok.com/@na\tme/live", Why.CONTROL_CHARACTER),
    ("https://www.tiktok.com/@name\x00/live", Why.CONTROL_CHARACTER),
    ("@name\x7f", Why.CONTROL_CHARACTER),
    ("@na\u200bme", Why.CONTROL_CHARACTER),
    ("@na\u202eme", Why.CONTROL_CHARACTER),
    ("\ufeff@name", Why.CONTROL_CHARACTER),
    ("\u00a0@name", Why.CONTROL_CHARACTER),
    ("@name\u2028", Why.CONTROL_CHARACTER),
    ("@name\x85", Why.CONTROL_CHARACTER),
    ("@name\ud800", Why.CONTROL_CHARACTER),
    (f"{FETCH}?a=\udcff", Why.CONTROL_CHARACTER),
    (f"{FETCH}?a=%00", Why.CONTROL_CHARACTER),
    (f"{FETCH}?a=%0d%0aHost:x", Why.CONTROL_CHARACTER),
    (f"{FETCH}?a=%7F", Why.CONTROL_CHARACTER),
    # no URL at all
    ("name", Why.UNRECOGNISED),
    ("\uff20name", Why.UNRECOGNISED),
    ("#", Why.UNRECOGNISED),
    # scheme
    ("http://www.tiktok.com/@name/live", Why.SCHEME),
    ("www.tiktok.com/@name/live", Why.SCHEME),
    ("//www.tiktok.com/@name/live", Why.SCHEME),
    ("https:/www.tiktok.com/@name/live", Why.SCHEME),
    ("https:www.tiktok.com/@name/live", Why.SCHEME),
    ("https:\\\\www.tiktok.com/@name/live", Why.SCHEME),
    ("wss://webcast.tiktok.com/webcast/im/", Why.SCHEME),
    ("javascript:alert(1)", Why.SCHEME),
    ("ftp://www.tiktok.com/@name/live", Why.SCHEME),
    ("http\u017f://www.tiktok.com/@name/live", Why.SCHEME),
    # authority
    ("https://user@www.tiktok.com/@name/live", Why.USERINFO),
    ("https://www.tiktok.com@evil.example/@name/live", Why.USERINFO),
    ("https://user:pw@www.tiktok.com/@name/live", Why.USERINFO),
    ("https://www.tiktok.com:443/@name/live", Why.PORT),
    ("https://www.tiktok.com:/@name/live", Why.PORT),
    ("https://evil.example:8443/@name/live", Why.PORT),
    ("https://127.0.0.1/@name/live", Why.IP_LITERAL),
    ("https://127.1/@name/live", Why.IP_LITERAL),
    ("https://2130706433/@name/live", Why.IP_LITERAL),
    ("https://0x7f000001/@name/live", Why.IP_LITERAL),
    ("https://127.0.0.1:80/@name/live", Why.IP_LITERAL),
    ("https://[::1]/@name/live", Why.IP_LITERAL),
    ("https://[::1]:443/@name/live", Why.IP_LITERAL),
    ("https://[::ffff:1.2.3.4]/@name/live", Why.IP_LITERAL),
    ("https://evil.example/@name/live", Why.HOST),
    ("https://tiktok.com.evil.example/@name/live", Why.HOST),
    ("https://www.tiktok.com.evil.example/@name/live", Why.HOST),
    ("https://eviltiktok.com/@name/live", Why.HOST),
    ("https://www-tiktok.com/@name/live", Why.HOST),
    ("https://ads.tiktok.com/@name/live", Why.HOST),
    ("https://www.tiktok.com./@name/live", Why.HOST),
    ("https://www..tiktok.com/@name/live", Why.HOST),
    ("https://.tiktok.com/@name/live", Why.HOST),
    ("https:///@name/live", Why.HOST),
    ("https://", Why.HOST),
    ("https://www.tiktok.com%2eevil.example/@name/live", Why.HOST),
    ("https://%77ww.tiktok.com/@name/live", Why.HOST),
    ("https://www.tiktok.com%00.evil.example/@name/live", Why.HOST),
    ("https://www.tiktok.com;evil.example/@name/live", Why.HOST),
    ("https://www.tiktok.com /@name/live", Why.HOST),
    ("https://www\u3002tiktok\u3002com/@name/live", Why.HOST),  # ideographic full stops
    ("https://www\uff0etiktok\uff0ecom/@name/live", Why.HOST),  # full-width full stops
    ("https://\uff57\uff57\uff57.tiktok.com/@name/live", Why.HOST),
    ("https://www.tikt\u043ek.com/@name/live", Why.HOST),  # Cyrillic o
    ("https://www.ti\u212atok.com/@name/live", Why.HOST),  # Kelvin sign, which lower() makes a k
    ("https://www.xn--tiktk-jye.com/@name/live", Why.HOST),
    ("https://www.tiktok.com\uff0f@name/live", Why.USERINFO),  # full-width solidus: no end of the host
    ("https://evil.example#@www.tiktok.com/@name/live", Why.HOST),
    ("https://evil.example?@www.tiktok.com/@name/live", Why.HOST),
    ("https://evil.example\\@www.tiktok.com/@name/live", Why.BACKSLASH),
    ("https://www.tiktok.com\\@evil.example/live", Why.BACKSLASH),
    ("https://www.tiktok.com/@name\\live", Why.BACKSLASH),
    # short links
    ("https://vm.tiktok.com/ZMabcdef/", Why.SHORT_LINK),
    ("https://vt.tiktok.com/ZSabcdef", Why.SHORT_LINK),
    ("https://www.tiktok.com/t/ZTabcdef/", Why.SHORT_LINK),
    # path
    ("https://www.tiktok.com//@name/live", Why.PATH),
    ("https://www.tiktok.com/@name//live", Why.PATH),
    ("https://www.tiktok.com/@name/live//", Why.PATH),
    ("https://www.tiktok.com/a/../@name/live", Why.PATH),
    ("https://www.tiktok.com/./@name/live", Why.PATH),
    ("https://www.tiktok.com/@name/live/..", Why.PATH),
    ("https://www.tiktok.com/@name/%2e%2e/live", Why.PATH),
    ("https://www.tiktok.com/@na%6De/live", Why.PATH),
    ("https://www.tiktok.com/%2540name/live", Why.PATH),
    ("https://www.tiktok.com/@name;x=1/live", Why.PATH),
    ("https://webcast.tiktok.com/webcast/../passport/", Why.PATH),
    ("https://webcast.tiktok.com/webcast/%2e%2e/passport/", Why.PATH),
    ("https://webcast.tiktok.com/webcast//im/fetch/", Why.PATH),
    ("https://webcast.tiktok.com//webcast/im/fetch/", Why.PATH),
    ("https://webcast.tiktok.com/webcast/im/fetch;x/", Why.PATH),
    ("https://www.tiktok.com/@n\u0430me/live", Why.CHARACTER),  # Cyrillic a
    ("https://www.tiktok.com/@na me/live", Why.CHARACTER),
    ("https://webcast.tiktok.com/webcast/ìm/", Why.CHARACTER),
    ("@n\u0430me", Why.CHARACTER),
    # a page of the platform that is no LIVE room
    ("https://www.tiktok.com", Why.NOT_LIVE),
    ("https://www.tiktok.com/", Why.NOT_LIVE),
    ("https://www.tiktok.com/live", Why.NOT_LIVE),
    ("https://www.tiktok.com/@name", Why.NOT_LIVE),
    ("https://www.tiktok.com/@name/", Why.NOT_LIVE),
    ("https://www.tiktok.com/@name/video/7300000000000000000", Why.NOT_LIVE),
    ("https://www.tiktok.com/@name/live/extra", Why.NOT_LIVE),
    ("https://www.tiktok.com/@name/LIVE", Why.NOT_LIVE),
    ("https://www.tiktok.com/name/live", Why.NOT_LIVE),
    ("https://m.tiktok.com/share/live", Why.NOT_LIVE),
    ("https://webcast.tiktok.com/", Why.NOT_LIVE),
    ("https://webcast.tiktok.com/webcast/", Why.NOT_LIVE),
    ("https://webcast.tiktok.com/webcast2/im/", Why.NOT_LIVE),
    ("https://webcast.tiktok.com/@name/live", Why.NOT_LIVE),
    ("https://www.tiktok.com/webcast/im/fetch/", Why.NOT_LIVE),
    # usernames
    ("@", Why.USERNAME),
    ("@a", Why.USERNAME),
    ("@" + "a" * 25, Why.USERNAME),
    ("@name.", Why.USERNAME),
    ("@..", Why.USERNAME),
    ("@na-me", Why.USERNAME),
    ("@na me", Why.USERNAME),
    ("@@name", Why.USERNAME),
    ("@name/live", Why.USERNAME),
    ("https://www.tiktok.com/@/live", Why.USERNAME),
    ("https://www.tiktok.com/@@name/live", Why.USERNAME),
    ("https://www.tiktok.com/@name./live", Why.USERNAME),
    ("https://www.tiktok.com/@na$me/live", Why.USERNAME),
    # room ids
    ("730000000000000000", Why.ROOM_ID),
    ("73000000000000000000", Why.ROOM_ID),
    ("0730000000000000000", Why.ROOM_ID),
    ("9223372036854775808", Why.ROOM_ID),
    ("7٣00000000000000000", Why.ROOM_ID),  # an Arabic-Indic digit
    ("https://m.tiktok.com/share/live/abc", Why.ROOM_ID),
    ("https://m.tiktok.com/share/live/-730000000000000000", Why.ROOM_ID),
    (f"{FETCH}?room_id=1", Why.ROOM_ID),
    (f"{FETCH}?room_id={ID}%20", Why.ROOM_ID),
    (f"{FETCH}?room_id=%37300000000000000000", Why.ROOM_ID),
    # percent-encoding and duplicates
    (f"{FETCH}?a=%", Why.PERCENT_ENCODING),
    (f"{FETCH}?a=%4", Why.PERCENT_ENCODING),
    (f"{FETCH}?a=%zz", Why.PERCENT_ENCODING),
    (f"{FETCH}?a=%ff", Why.PERCENT_ENCODING),
    (f"{FETCH}?a=%c0%af", Why.PERCENT_ENCODING),
    (f"{FETCH}?a=%ed%a0%80", Why.PERCENT_ENCODING),
    (f"{FETCH}?room_id={ID}&room_id={ID}", Why.DUPLICATE_PARAMETER),
    (f"{FETCH}?room_id={ID}&a=1&room%5fid=7300000000000000001", Why.DUPLICATE_PARAMETER),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_every_wrong_form_is_refused_with_its_own_reason(text: str, reason: Why) -> None:
    with pytest.raises(RoomUrlError) as refused:
        parse(text)
    assert refused.value.reason == reason.value
    assert refused.value.status == "INVALID_ARGUMENT"
    [violation] = refused.value.violations
    assert (violation.field, violation.reason) == ("room_url", reason.value)


def test_every_reason_has_an_example_here() -> None:
    assert {reason for _, reason in REFUSED} == set(Why)


def test_every_reason_is_explained_in_the_manual() -> None:
    manual = (Path(__file__).parents[3] / "docs" / "room-urls.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(ROOM_URL_\w+)` \|", manual, re.MULTILINE)) == {why.value for why in Why}


def test_a_refusal_does_not_repeat_what_was_pasted() -> None:
    """A pasted query may hold a session token, and errors are logged."""
    with pytest.raises(RoomUrlError) as refused:
        parse("https://www.tiktok.com/@name/video?sessionid=0123secret")
    assert "secret" not in f"{refused.value} {refused.value!r} {refused.value.violations}"


@pytest.mark.parametrize("room_id", ["1000000000000000000", "9223372036854775807"])
def test_the_ends_of_the_range_of_room_ids_are_taken(room_id: str) -> None:
    assert parse(room_id).room_id == room_id


@pytest.mark.parametrize("name", ["ab", "a" * 24, "_.", "1.", "a..b", ".ab"])
def test_usernames_at_the_edge_of_the_rule(name: str) -> None:
    if name.endswith("."):
        with pytest.raises(RoomUrlError):
            parse(f"@{name}")
    else:
        assert parse(f"@{name}").username == name


def test_a_url_of_exactly_the_longest_length_is_taken_and_one_more_is_not() -> None:
    base = f"{FETCH}?a="
    longest = base + "x" * (MAX_LENGTH - len(base))
    assert parse(longest).url == longest
    with pytest.raises(RoomUrlError):
        parse(longest + "x")
