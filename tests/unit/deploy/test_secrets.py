"""Services' own secrets: one key for one service, rotated where running services find it."""

from __future__ import annotations

import json
import stat
import sys
import time
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from deploy import migrate, secrets
from deploy.local.layout import ROOT
from deploy.settings import table
from servicekit import keyset
from servicekit.identity import ALGORITHM, Identity
from servicekit.rpc.callers import Callers
from tests.unit.deploy.compose import secrets_of

SERVICES = list(table().services)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("secrets")
    secrets.in_containers(folder).ensure()
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of its own, to be changed at will."""
    for file in made.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def private(names: set[str]) -> set[str]:
    return {name for name in names if name.startswith("service_key_") or name.endswith(".key")}


def test_each_service_is_given_its_own_private_key_and_no_others() -> None:
    """In the table, and so in every way of running; of compose's own file it is looked at once more."""
    for name, service in table().services.items():
        assert private(secrets_of(service)) == {f"service_key_{name}", f"tls_{name}.key"}
    document = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text(encoding="utf-8"))
    holders = {
        name: private({secret for secret in part.get("secrets", ()) if isinstance(secret, str)})
        for name, part in document["services"].items()
    }
    for name, held in holders.items():
        assert held <= {f"service_key_{name}", f"tls_{name}.key"}, name


def test_the_public_keys_are_those_of_the_private_ones_and_public(made: Path) -> None:
    document = json.loads((made / "service_keys.json").read_text())
    assert list(document) == SERVICES
    for name, jwks in document.items():
        (key,) = jwks["keys"]
        assert key["kid"] == keyset.load(made / f"service_key_{name}").keys[0].kid
        assert "d" not in key
    pair = Identity("signer", made / "service_key_signer").pair("quota")
    assert Callers("quota", made / "service_keys.json").require((pair,), frozenset({"signer"})) == "signer"


def test_a_certificate_names_its_part_where_it_is_called(made: Path) -> None:
    for name in (*SERVICES, "postgres", "redis"):
        certificate = x509.load_pem_x509_certificate((made / f"tls_{name}.pem").read_bytes())
        certificate.verify_directly_issued_by(
            x509.load_pem_x509_certificate((made / "tls_ca.pem").read_bytes())
        )
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        told = set(names.get_values_for_type(x509.DNSName))
        assert {name, "localhost", f"{name}.signgate", f"{name}.signgate.svc"} <= told
        assert "127.0.0.1" in map(str, names.get_values_for_type(x509.IPAddress))
        assert not told & ({*SERVICES, "postgres", "redis"} - {name})


def rotate(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["secrets", "rotate-service", *arguments, str(folder)])
    return secrets.main()


def test_a_rotation_publishes_the_new_key_before_it_signs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into the files that containers have mounted, which are the ones of when they started."""
    files = [folder / "service_key_signer", folder / "service_keys.json"]
    inodes = [file.stat().st_ino for file in files]
    assert rotate(folder, monkeypatch, "signer") == 0
    assert [file.stat().st_ino for file in files] == inodes
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {
        stat.S_IMODE((folder / "edge_secret").stat().st_mode)
    }
    old, new = keyset.load(files[0]).keys
    assert keyset.load(files[0]).active(ALGORITHM, time.time()).kid == old.kid
    assert old.exp == new.nbf + keyset.OVERLAP
    public = {key["kid"]: key.get("exp") for key in json.loads(files[1].read_text())["signer"]["keys"]}
    assert public == {old.kid: old.exp, new.kid: None}
    assert not list(folder.glob("*.partial"))
    assert not list(folder.glob(".*"))


def test_of_a_stolen_key_nothing_is_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stolen = Identity("signer", folder / "service_key_signer").pair("quota")
    assert rotate(folder, monkeypatch, "signer", "--stolen", "--lead", "0") == 0
    callers = Callers("quota", folder / "service_keys.json")
    with pytest.raises(Exception, match="SERVICE_CREDENTIAL_INVALID"):
        callers.require((stolen,), frozenset({"signer"}))
    fresh = Identity("signer", folder / "service_key_signer").pair("quota")
    assert callers.require((fresh,), frozenset({"signer"})) == "signer"


@pytest.mark.parametrize("arguments", [("signer", "--lead", "1"), ("envoy",)])
def test_a_rotation_that_would_refuse_calls_is_not_begun(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    before = (folder / "service_keys.json").read_bytes()
    with pytest.raises(SystemExit):
        rotate(folder, monkeypatch, *arguments)
    assert (folder / "service_keys.json").read_bytes() == before


def test_the_migration_refuses_plain_text_to_another_host(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SIGNGATE_PLAINTEXT_STORES", raising=False)
    dsn = folder / migrate.ADMIN_DSN
    dsn.write_text(dsn.read_text().partition("?")[0])
    with pytest.raises(migrate.MigrationError, match="reaches postgres in plain text") as refused:
        migrate.migrate(folder)
    assert (folder / "postgres_superuser").read_text().strip() not in str(refused.value)


def test_the_migration_takes_the_named_hosts_as_services_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsn = folder / migrate.ADMIN_DSN
    dsn.write_text(dsn.read_text().partition("?")[0])
    monkeypatch.setenv("SIGNGATE_PLAINTEXT_STORES", "redis, postgres")
    assert migrate._admin_dsn(folder) == dsn.read_text().strip()
