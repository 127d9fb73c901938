"""Settings: where they come from, and that an error names the setting but never its value."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from servicekit.config import (
    EX_CONFIG,
    Address,
    ServiceSettings,
    SettingsError,
    load,
    parse,
    parse_address,
)


class Example(ServiceSettings):
    postgres_dsn: SecretStr
    limit: int = 5


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNGATE_GRPC_LISTEN", "127.0.0.1:7101")
    monkeypatch.setenv("SIGNGATE_POSTGRES_DSN", "postgres://u:hunter2@localhost/db")


def test_settings_come_from_prefixed_variables() -> None:
    settings = parse(Example)
    assert settings.grpc_listen == Address("127.0.0.1", 7101)
    assert settings.postgres_dsn.get_secret_value() == "postgres://u:hunter2@localhost/db"
    assert settings.limit == 5


def test_a_secret_file_wins_over_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dsn"
    path.write_text("postgres://127.0.0.1/from-a-file\n")
    monkeypatch.setenv("SIGNGATE_POSTGRES_DSN_FILE", str(path))
    assert parse(Example).postgres_dsn.get_secret_value() == "postgres://127.0.0.1/from-a-file"


def test_only_secrets_are_read_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "limit"
    path.write_text("9")
    monkeypatch.setenv("SIGNGATE_LIMIT_FILE", str(path))
    assert parse(Example).limit == 5


def test_a_missing_secret_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNGATE_POSTGRES_DSN_FILE", "/nowhere/dsn")
    with pytest.raises(SettingsError, match="/nowhere/dsn"):
        parse(Example)


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "hunter2" not in repr(parse(Example))
    monkeypatch.setenv("SIGNGATE_LIMIT", "hunter2")
    with pytest.raises(SettingsError) as caught:
        parse(Example)
    assert "hunter2" not in str(caught.value)
    assert "SIGNGATE_LIMIT" in str(caught.value)


def test_all_that_is_wrong_is_listed_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGNGATE_LIMIT", "many")
    monkeypatch.setenv("SIGNGATE_GRPC_LISTEN", "nonsense")
    monkeypatch.delenv("SIGNGATE_POSTGRES_DSN")
    with pytest.raises(SystemExit) as caught:
        load(Example)
    assert caught.value.code == EX_CONFIG
    said = capsys.readouterr().err
    for name in ("SIGNGATE_LIMIT", "SIGNGATE_GRPC_LISTEN", "SIGNGATE_POSTGRES_DSN: is required"):
        assert name in said


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        parse(Example).limit = 6  # type: ignore[misc]  # what must fail


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:7101", "::1", 7101), (":80", "::", 80), ("keys:1", "keys", 1)],
)
def test_addresses(text: str, host: str, port: int) -> None:
    address = parse_address(text)
    assert address == Address(host, port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize("text", ["", "localhost", "localhost:", "h:70000", "h:-1", "::1:80", "h:٣"])
def test_wrong_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="host"):
        parse_address(text)
