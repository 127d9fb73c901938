from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import SigngateError
from services.auth.addresses import normal_email
from services.auth.domain import Factor, Session, User, duration, merged, pkce
from services.auth.errors import UserBanned, ValidationFailed

NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        (" Ann@Example.COM ", "ann@example.com"),
        ("a.b+c@sub.example.org", "a.b+c@sub.example.org"),
        ("ann@Exämple.de", "ann@xn--exmple-cua.de"),
        ("o'brien@example.com", "o'brien@example.com"),
        ("ann@straße.de", "ann@xn--strae-oqa.de"),
        ("ann@XN--STRAE-OQA.de", "ann@xn--strae-oqa.de"),
        ("ann@Bücher.example", "ann@xn--bcher-kva.example"),
        ("ann@\uff45xample\u3002com", "ann@example.com"),
        ("ann@βόλος.com", "ann@xn--nxasmm1c.com"),
        ("ann@ex\u00adample.com\u200b", "ann@example.com"),
        ("ann@BÜCHER.example", "ann@xn--bcher-kva.example"),
        ("ann@bu\u0308cher.example", "ann@xn--bcher-kva.example"),
    ],
)
def test_one_address_has_one_form(given_: str, kept: str) -> None:
    assert normal_email(given_) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a@b",
        "@example.com",
        "a@example",
        "a@@example.com",
        "a b@example.com",
        "a@exam ple.com",
        "a@example.com\r\nBcc: b@example.com",
        "a\0@example.com",
        "<a@example.com>",
        '"a"@example.com',
        "a@-example.com",
        "ünïcode@example.com",
        "a@\u3002.com",
        "a..b@example.com",
        ".ann@x.test",
        "ann.@x.test",
        ".@x.test",
        "ann@x.test.",
        "ann@[127.0.0.1]",
        "ann@127.0.0.1",
        "ann@☃.net",
        "ann@a_b.test",
        "ann@xn--a.test",
        "ann@ab--c.test",
        "ann@xn--strasse-.de",
        "ann@a\u200db.test",
        "ann@\u0661a.test",
        "\u212aann@x.test",
        f"{'a' * 65}@example.com",
        f"a@{'b' * 250}.com",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValidationFailed):
        normal_email(text)


def distinct(length: int) -> str:
    return "".join(chr(0x4E00 + n) for n in range(length))


@pytest.mark.parametrize(
    "text",
    [
        f"a@{distinct(4000)}.de",
        f"a@{distinct(248)}.de",
        f"a@{distinct(64)}.de",
        "a@" + "\ufdfa" * 63 + ".de",  # stands for 18 letters each
        "a@" + ".".join(["\ufdfa" * 60] * 4),
        "a@" + "\u3002".join(["\ufdfa" * 60] * 4),
    ],
)
def test_a_domain_is_held_to_its_lengths_before_it_is_converted(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1: the conversion takes the square of a label's length, and looks at the length afterwards."""

    def convert(domain: str, **_: object) -> bytes:
        raise AssertionError(len(domain))

    monkeypatch.setattr("idna.encode", convert)
    with pytest.raises(ValidationFailed):
        normal_email(text)


def test_two_owners_domains_stay_two() -> None:
    """S27: IDNA 2003 made one domain of these."""
    assert normal_email("ann@straße.de") != normal_email("ann@strasse.de")
    assert normal_email("ann@fa\u03c2.example") != normal_email("ann@fa\u03c3.example")


@given(st.text(st.sampled_from("ab.-_+'!@\"() ,:;<>[]\\"), min_size=1, max_size=12))
def test_an_accepted_local_part_can_be_mailed(local: str) -> None:
    """S28: what the mail library can't write is refused at sign-up."""
    try:
        email = normal_email(f"{local}@x.test")
    except ValidationFailed:
        return
    message = EmailMessage(policy=SMTP)
    message["To"] = Address(addr_spec=email)
    assert message["To"].addresses[0].addr_spec == email
    assert not message["To"].defects


def test_a_refusal_does_not_quote_the_address() -> None:
    with pytest.raises(ValidationFailed) as refused:
        normal_email("ann.smith@example")
    assert "smith" not in f"{refused.value!r} {refused.value}"


@given(st.text())
def test_any_text_is_an_address_in_normal_form_or_refused(text: str) -> None:
    try:
        email = normal_email(text)
    except ValidationFailed:
        return
    assert normal_email(email) == email
    assert not any(char.isspace() or not char.isprintable() for char in email)


@pytest.mark.parametrize(
    ("text", "span"),
    [("24h", timedelta(hours=24)), ("1h30m", timedelta(minutes=90)), ("none", None), ("", None)],
)
def test_a_ban_has_a_duration(text: str, span: timedelta | None) -> None:
    assert duration(text, "ban_duration") == span


@pytest.mark.parametrize("text", ["h", "-1h", "1", "1y", "for ever", "1h 2m"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValidationFailed):
        duration(text, "ban_duration")


def test_an_endless_ban_stays_within_the_calendar() -> None:
    span = duration("999999999d", "ban_duration")
    assert span is not None
    assert (NOW + span).year < 2200


def test_pkce_takes_only_what_the_rfc_allows() -> None:
    assert pkce("", "s256") is None
    found = pkce("c" * 43, "S256")
    assert found is not None
    assert found.method == "s256"
    for challenge, method in [("c" * 42, "s256"), ("c" * 129, "s256"), ("ü" * 43, "s256"), ("c" * 43, "md5")]:
        with pytest.raises(ValidationFailed):
            pkce(challenge, method)


def test_a_null_removes_a_member_and_the_rest_stays() -> None:
    assert merged({"a": 1, "b": 2}, {"a": None, "c": 3}) == {"b": 2, "c": 3}


def user(**changes: object) -> User:
    values = {"id": UUID(int=1), "email": "ann@example.com", "created_at": NOW, "updated_at": NOW, **changes}
    return User(**values)  # type: ignore[arg-type]  # a test's members


def test_no_repr_shows_an_address_or_a_hash() -> None:
    shown = repr(user(password_hash="$argon2id$secret", new_email="new@example.com"))
    assert "example.com" not in shown
    assert "argon2" not in shown


def test_a_ban_ends_by_itself_and_a_deactivation_does_not() -> None:
    assert not user(banned_until=NOW + timedelta(hours=1)).may_sign_in(NOW)
    assert user(banned_until=NOW - timedelta(hours=1)).may_sign_in(NOW)
    assert not user(is_active=False).may_sign_in(NOW)


def test_an_unproved_factor_protects_nothing() -> None:
    factor = Factor(UUID(int=2), "", "totp", "unverified", NOW, NOW)
    assert not user(factors=(factor,)).has_factor


@pytest.mark.parametrize(
    ("session", "over"),
    [
        ({}, False),
        ({"revoked_at": NOW}, True),
        ({"not_after": NOW}, True),
        ({"created_at": NOW - timedelta(days=31)}, True),
        ({"created_at": NOW - timedelta(days=31), "refreshed_at": NOW - timedelta(days=1)}, False),
    ],
)
def test_a_session_ends_by_revocation_time_or_silence(session: dict[str, datetime], over: bool) -> None:  # noqa: FBT001
    values = {"created_at": NOW, **session}
    found = Session(UUID(int=1), UUID(int=2), **values)  # type: ignore[arg-type]  # moments only
    assert found.ended(NOW, timedelta(days=30)) is over


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"email_confirmed_at": NOW}, ""),
        ({}, "EMAIL_NOT_CONFIRMED"),
        ({"banned_until": NOW + timedelta(hours=1)}, "USER_BANNED"),
        ({"email_confirmed_at": NOW, "banned_until": NOW}, ""),
        ({"email_confirmed_at": NOW, "is_active": False}, "USER_BANNED"),
        ({"email_confirmed_at": NOW, "is_active": False, "deleted_at": NOW}, "USER_DELETED"),
    ],
)
def test_why_an_account_may_not_act(changes: dict[str, object], reason: str) -> None:
    found = user(**changes)
    assert found.may_act(NOW) is not bool(reason)
    assert found.may_sign_in(NOW) is (reason in ("", "EMAIL_NOT_CONFIRMED"))
    with pytest.raises(SigngateError) if reason else nullcontext() as refused:
        found.require_active(NOW)
    assert (refused.value.reason if refused else "") == reason


def test_the_end_of_a_ban_is_told() -> None:
    with pytest.raises(UserBanned) as refused:
        user(banned_until=NOW + timedelta(hours=1)).require_active(NOW)
    assert refused.value.message == "This account is banned until 2026-01-15T13:00:00Z."
    assert refused.value.metadata == {"banned_until": "2026-01-15T13:00:00Z"}
