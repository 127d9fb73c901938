"""The parts of the `signgate` command that need nobody to answer."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from signgate.auth.v1 import user_pb2
from signgate_client.command import main
from signgate_client.command.caller import Caller
from signgate_client.command.logins import Login, Logins
from signgate_client.command.options import SPAN
from signgate_client.command.show import table
from signgate_client.command.signing import BATCH, batches

LOGIN = Login("ann@example.com", "an access token", "a refresh token", 1_800_000_000)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("0s", timedelta()),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("2h", timedelta(hours=2)),
        ("30d", timedelta(days=30)),
    ],
)
def test_spans(text: str, span: timedelta) -> None:
    assert SPAN.convert(text, None, None) == span


@pytest.mark.parametrize("text", ["", "5", "5y", "-5s", "1.5h", "5 s", "٣s", "999999999d", "d", "1h30m"])
def test_what_is_no_span_is_told(text: str) -> None:
    with pytest.raises(click.BadParameter):
        SPAN.convert(text, None, None)


def test_logins_are_the_owners_and_one_a_server(tmp_path: Path) -> None:
    logins = Logins(tmp_path / "signgate" / "logins.json")
    assert logins.get("one:1") is None
    logins.keep("one:1", LOGIN)
    logins.keep("two:2", LOGIN)
    logins.forget("two:2")
    logins.forget("three:3")
    assert logins.get("one:1") == LOGIN
    assert logins.get("two:2") is None
    assert logins.path.stat().st_mode & 0o777 == 0o600
    assert logins.path.parent.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in logins.path.parent.iterdir()] == ["logins.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"one:1": 5}', '{"one:1": {"email": "x"}}'])
def test_a_file_that_is_none_counts_as_no_login(tmp_path: Path, content: str) -> None:
    path = tmp_path / "logins.json"
    path.write_text(content)
    assert Logins(path).get("one:1") is None
    Logins(path).keep("one:1", LOGIN)
    assert Logins(path).get("one:1") == LOGIN


def test_no_repr_shows_a_token_or_a_key() -> None:
    caller = Caller("one:1", tls=False, timeout=1, as_json=False, api_key="sgk_live_secret")
    assert "secret" not in repr(caller)
    assert "token" not in repr(LOGIN).replace("_token", "")


def test_a_session_is_kept_with_the_moment_its_token_ends() -> None:
    session = user_pb2.Session(access_token="a", refresh_token="r", user=user_pb2.User(email="e"))
    session.expires_at.FromSeconds(1_800_000_000)
    assert Login.of(session) == Login("e", "a", "r", 1_800_000_000)


def test_rooms_go_in_lists_that_one_call_takes() -> None:
    rooms = [f"@r.{n}" for n in range(2 * BATCH + 1)]
    lists = list(batches(rooms))
    assert [len(each) for each in lists] == [BATCH, BATCH, 1]
    assert [room for each in lists for room in each] == rooms


def test_brackets_in_a_value_are_no_markup() -> None:
    assert str(next(iter(table(("name",), [["[bold]x[/]"]]).columns[0].cells))) == "[bold]x[/]"


def run(*arguments: str, home: Path) -> tuple[int, str, str]:
    environment = {"XDG_CONFIG_HOME": str(home), "SIGNGATE_SERVER": "127.0.0.1:1", "SIGNGATE_API_KEY": ""}
    done = CliRunner().invoke(main, list(arguments), env=environment)
    return done.exit_code, done.stdout, done.stderr


def test_who_is_not_signed_in_is_told_how(tmp_path: Path) -> None:
    code, out, told = run("quota", home=tmp_path)
    assert (code, out) == (1, "")
    assert "signgate login" in told
    code, out, told = run("keys", "revoke-self", home=tmp_path)
    assert (code, out) == (1, "")
    assert "SIGNGATE_API_KEY" in told


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    code, out, told = run("engines", home=tmp_path)
    assert (code, out, told) == (1, "", "Error: 127.0.0.1:1 can't be reached.\n")


def test_every_command_has_a_help(tmp_path: Path) -> None:
    def walk(command: click.Command, *path: str) -> None:
        code, out, _ = run(*path, "--help", home=tmp_path)
        assert code == 0
        assert command.help
        assert " ".join(command.help.split("\n\n")[0].split()) in " ".join(out.split())
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                walk(inner, *path, name)

    walk(main)


def test_a_foreign_file_stays_whole(tmp_path: Path) -> None:
    """What another version wrote beside this server's login is kept."""
    path = tmp_path / "logins.json"
    path.write_text(json.dumps({"other:1": {"later": True}}))
    Logins(path).keep("one:1", LOGIN)
    assert json.loads(path.read_text())["other:1"] == {"later": True}
