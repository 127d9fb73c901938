"""A store elsewhere is reached by TLS, or named by the operator; no password of an address is told."""

import pytest
from pydantic import SecretStr

from servicekit import stores
from servicekit.config import EX_CONFIG, ServiceSettings, SettingsError, load, parse


class Example(ServiceSettings):
    postgres_dsn: SecretStr | None = None
    redis_url: SecretStr | None = None


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNGATE_GRPC_LISTEN", "127.0.0.1:7101")
    for name in ("PGHOST", "PGSSLMODE", "SIGNGATE_PLAINTEXT_STORES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("dsn", "clear"),
    [
        ("postgresql://u:p@127.0.0.1:5432/d", []),
        ("postgresql://u:p@[::1]:5432/d", []),
        ("postgresql://u:p@localhost/d?sslmode=disable", []),
        ("postgresql://u:p@LOCALHOST./d", []),
        ("postgresql:///d?host=/run/postgresql", []),
        ("postgresql://u:p@%2Frun%2Fpostgresql/d", []),
        ("postgresql:///d", []),
        ("postgresql://u:p@db.example/d?sslmode=require", []),
        ("postgresql://u:p@db.example/d?sslmode=verify-full&sslrootcert=/ca.pem", []),
        ("postgresql://u:p@db.example/d", ["db.example"]),
        ("postgresql://u:p@db.example/d?sslmode=prefer", ["db.example"]),
        ("postgresql://u:p@db.example/d?sslmode=allow", ["db.example"]),
        ("postgresql://u:p@db.example/d?sslmode=disable", ["db.example"]),
        ("postgresql://u:p@db.example/d?sslmode=require&sslmode=disable", ["db.example"]),
        ("postgresql://u:p@127.0.0.1,10.0.0.5:5433/d", ["10.0.0.5"]),
        ("postgresql://u:p@[2001:db8::1]:5432/d", ["2001:db8::1"]),
        ("postgresql://u:p@127.0.0.1/d?host=db.example", ["db.example"]),
        ("postgresql://u:p@127.0.0.1/d?hostaddr=10.0.0.5", ["10.0.0.5"]),
        ("postgresql:///d?service=other", ["other"]),
        ("postgresql://u:p@localhost.example/d", ["localhost.example"]),
        ("postgresql://u:p@127.0.0.1.example/d", ["127.0.0.1.example"]),
        ("postgresql://u:127.0.0.1@0.0.0.0/d", ["0.0.0.0"]),
    ],
)
def test_postgresql(dsn: str, clear: list[str]) -> None:
    assert stores.postgres_in_clear(dsn, {}) == clear


def test_what_the_driver_takes_from_the_environment_counts() -> None:
    assert stores.postgres_in_clear("postgresql:///d", {"PGHOST": "db.example"}) == ["db.example"]
    remote = "postgresql://u:p@db.example/d"
    assert stores.postgres_in_clear(remote, {"PGSSLMODE": "verify-full"}) == []
    assert stores.postgres_in_clear(f"{remote}?sslmode=prefer", {"PGSSLMODE": "require"}) == ["db.example"]


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("redis://:p@127.0.0.1:6379/0", []),
        ("redis://localhost", []),
        ("unix:///run/redis.sock", []),
        ("rediss://:p@redis.example:6379/0", []),
        ("rediss+cluster://:p@a.example:6379,b.example:6379", []),
        ("redis://:p@redis.example:6379/0", ["redis.example"]),
        ("redis+cluster://u:p@127.0.0.1:1,b.example:6379", ["b.example"]),
        ("redis://:rediss@10.0.0.1", ["10.0.0.1"]),
    ],
)
def test_redis(url: str, clear: list[str]) -> None:
    assert stores.redis_in_clear(url) == clear


@pytest.mark.parametrize(
    ("setting", "url"),
    [
        ("POSTGRES_DSN", "postgresql://role:hunter2@Db.example:5432/signgate"),
        ("REDIS_URL", "redis://user:hunter2@Db.example:6379/0"),
    ],
)
def test_plain_text_to_another_host_stops_the_start_unless_the_host_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], setting: str, url: str
) -> None:
    monkeypatch.setenv(f"SIGNGATE_{setting}", url)
    for named in ("", "other.example", "*", "example"):
        monkeypatch.setenv("SIGNGATE_PLAINTEXT_STORES", named)
        with pytest.raises(SystemExit) as stopped:
            load(Example)
        assert stopped.value.code == EX_CONFIG
        said = capsys.readouterr().err
        assert f"SIGNGATE_{setting} reaches db.example in plain text" in said
        assert "SIGNGATE_PLAINTEXT_STORES" in said
        assert "hunter2" not in said
    monkeypatch.setenv("SIGNGATE_PLAINTEXT_STORES", "other.example, DB.example")
    parse(Example)


def test_an_address_that_is_none_tells_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNGATE_REDIS_URL", "redis://:hunter2@[::1")
    with pytest.raises(SettingsError) as wrong:
        parse(Example)
    assert "hunter2" not in str(wrong.value)


def test_redis_own_ca_goes_along_with_tls_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNGATE_REDIS_CA", "/run/secrets/tls ca.pem")
    monkeypatch.setenv("SIGNGATE_REDIS_URL", "rediss://:p@redis:6379/0")
    assert (
        parse(Example).redis_address()
        == "rediss://:p@redis:6379/0?ssl_ca_certs=%2Frun%2Fsecrets%2Ftls%20ca.pem"
    )
    monkeypatch.setenv("SIGNGATE_REDIS_URL", "redis://:p@127.0.0.1:6379/0")
    assert parse(Example).redis_address() == "redis://:p@127.0.0.1:6379/0"


def test_a_certificate_needs_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNGATE_TLS_CERT_FILE", "/run/secrets/tls_quota.pem")
    with pytest.raises(SettingsError, match="SIGNGATE_TLS_CERT and SIGNGATE_TLS_KEY go together"):
        parse(Example)
