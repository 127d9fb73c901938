"""Answers on the wire: what is shared between them never shows in the wrong one."""

from datetime import UTC, datetime
from itertools import permutations

from services.signer.domain import Algorithm, EngineInfo, Room, RoomKind, Signed, SignRequest
from services.signer.jobs import Part, Wish
from services.signer.messages import Writer, timestamp
from services.signer.room_url import parse
from signgate.signer.v1 import signer_pb2 as pb

AT = datetime(2026, 1, 2, tzinfo=UTC)
NATIVE, BROWSER = EngineInfo("native", "v1", AT), EngineInfo("websdk", "v2", AT, browser_version="150.0")


def part(room: Room, signed: Signed) -> Part:
    made = Part("0199f2a0-7b1c-7d3e-8f40-1a2b3c4d5e6f", Wish(room.url), room, None)
    made.signed = signed
    return made


PARTS = [
    part(parse("@someone"), Signed("https://a", NATIVE, "UA/1", {"sg_v": "1"}, AT, "k1", Algorithm.ED25519)),
    part(parse("@another"), Signed("https://b", NATIVE, "UA/1", {}, AT, "k1", Algorithm.ED25519)),
    part(parse("7" * 19), Signed("https://c", NATIVE, "UA/1", {"x": "2"}, AT, "k2", Algorithm.HMAC_SHA256)),
    part(parse("@someone"), Signed("https://d", BROWSER, "UA/2", request_headers={"referer": "https://r"})),
]


def written(writer: Writer, part: Part) -> pb.Signature:
    message = pb.Signature()
    writer.signature(part, message)
    return message


def test_a_signature_reads_the_same_whatever_was_written_before_it() -> None:
    alone = [written(Writer(), part) for part in PARTS]
    for order in permutations(range(len(PARTS))):
        writer = Writer()
        for place in order:
            assert written(writer, PARTS[place]) == alone[place]


def test_every_field_of_a_signature_is_its_own_part_s() -> None:
    message = written(Writer(), PARTS[2])
    assert message == pb.Signature(
        signed_url="https://c",
        canonical_url=f"https://m.tiktok.com/share/live/{'7' * 19}",
        room_kind=pb.ROOM_KIND_ROOM_ID,
        room_id="7" * 19,
        tokens={"x": "2"},
        expires_at=timestamp(AT),
        signing_key_id="k2",
        algorithm=pb.ALGORITHM_HMAC_SHA256,
        user_agent="UA/1",
        engine=pb.EngineInfo(name="native", version="v1", since=timestamp(AT)),
    )


def test_no_signature_and_no_payload_stands_in_a_repr() -> None:
    room = Room(RoomKind.USERNAME, "https://www.tiktok.com/@a.b/live", "a.b")
    secret = "must-not-show"
    shown = repr(SignRequest(room, "id", payload=secret)) + repr(Signed(secret, NATIVE, tokens={"t": secret}))
    assert secret not in shown
