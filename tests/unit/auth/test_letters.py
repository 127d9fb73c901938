from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from jinja2 import UndefinedError

from servicekit.testing.clock import ManualClock
from services.auth.domain import Purpose
from services.auth.mail.letters import Letter, LetterWriter, Notice

KINDS: tuple[Purpose | Notice, ...] = (*get_args(Purpose), *get_args(Notice))


def writer(overrides: Path | None = None) -> LetterWriter:
    return LetterWriter(
        "Signgate <no-reply@signgate.test>", "Signgate", "http://signgate.test", ManualClock(), overrides
    )


def parts(letter: Letter, overrides: Path | None = None) -> tuple[str, str, str]:
    message = writer(overrides).write(letter)
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert html is not None
    return str(message["Subject"]), str(text.get_content()), str(html.get_content())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_subject_a_text_and_a_page(kind: Purpose | Notice) -> None:
    link = "" if kind == "reauthentication" else "http://signgate.test/verify?token=t&type=signup"
    letter = Letter(kind, "ann@example.com", "012345", link, 60, "new@example.com")
    subject, text, html = parts(letter)
    assert subject
    assert "{" not in subject + text
    assert "Signgate" in text
    assert "<html" in html
    if kind in get_args(Purpose):
        assert "\n    012345\n" in text
        assert "012345" in html
        assert link in text
        assert "60 minutes" in text


def test_what_users_write_stays_text_in_the_page() -> None:
    letter = Letter("email_change_current", "a@example.com", "1", "", 1, "<b>x</b>@example.com")
    _, text, html = parts(letter)
    assert "<b>x</b>@example.com" in text
    assert "&lt;b&gt;x&lt;/b&gt;@example.com" in html


def test_a_letter_s_repr_shows_neither_address_nor_code() -> None:
    shown = repr(Letter("signup", "ann@example.com", "012345", "http://x/verify?token=secret", 60))
    assert "ann@" not in shown
    assert "012345" not in shown
    assert "secret" not in shown


def test_a_contested_sign_up_s_letter_says_that_its_code_sets_no_password() -> None:
    """S8."""
    for contested in (True, False):
        letter = Letter("signup", "a@example.com", "1", "l", 1, contested=contested)
        for part in parts(letter)[1:]:
            assert ("sets none of these passwords" in part) is contested


def test_a_deployment_s_templates_come_first(tmp_path: Path) -> None:
    (tmp_path / "signup.txt").write_text("Hi\n{{ letter.code }}", encoding="utf-8")
    subject, text, html = parts(Letter("signup", "a@example.com", "9", "l", 1), tmp_path)
    assert (subject, text.strip()) == ("Hi", "9")
    assert "Confirm address" in html


def test_a_template_that_names_what_is_not_there_fails_loudly(tmp_path: Path) -> None:
    (tmp_path / "signup.txt").write_text("Hi\n{{ kode }}", encoding="utf-8")
    with pytest.raises(UndefinedError):
        parts(Letter("signup", "a@example.com", "9", "l", 1), tmp_path)


def test_the_letter_about_a_new_password_says_where_keys_are_revoked() -> None:
    _, text, html = parts(Letter("password_changed", "a@example.com"))
    link = "http://signgate.test/console/#/keys"
    assert "API keys still work" in text
    assert link in text
    assert f'href="{link}"' in html
