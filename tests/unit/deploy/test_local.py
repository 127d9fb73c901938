"""The local stack's own rules, without starting anything."""

from __future__ import annotations

import base64
import shlex
import stat
from pathlib import Path

import pytest

from deploy.local import programs, secrets
from deploy.local.errors import StackError
from deploy.local.layout import Layout
from deploy.migrate import scram_verifier
from deploy.settings import table


def test_the_scram_verifier_is_postgresqls_own() -> None:
    """PostgreSQL 18 itself stored this for this password, with a salt of its own choice."""
    assert scram_verifier("correct horse", base64.b64decode("+TZXL+ZlfzfOxj5cKdxTxQ==")) == (
        "SCRAM-SHA-256$4096:+TZXL+ZlfzfOxj5cKdxTxQ=="
        "$Fwcl7wB6Sog9Kzaio3mP+1uuab5GtLtTs5Ke/QDSzno=:wYzEO02X0gkNh0D0xg1iWJhvUHoMA07GLs/UlY5W1/A="
    )


def test_secrets_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    layout = Layout(run=tmp_path)
    secrets.ensure(layout)
    first = {path.name: path.read_bytes() for path in layout.secrets.iterdir()}
    secrets.ensure(layout)
    assert {path.name: path.read_bytes() for path in layout.secrets.iterdir()} == first
    assert table().secrets() <= set(first)
    assert stat.S_IMODE(layout.secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in layout.secrets.iterdir()} == {0o600}


def test_no_secret_reaches_the_supervisors_configuration(tmp_path: Path) -> None:
    """It is readable by all, and so is every process' command line."""
    layout = Layout(run=tmp_path)
    secrets.ensure(layout)
    programs.write(layout)
    text = layout.supervisor_config.read_text()
    for path in layout.secrets.iterdir():
        for line in path.read_text().splitlines():
            assert len(line) < 16 or line not in text, path.name


def test_a_run_directory_with_odd_characters_survives_the_configuration(tmp_path: Path) -> None:
    """What supervisord itself reads back from what was written."""
    from supervisor.options import ServerOptions  # noqa: PLC0415 -- slow, and only here

    layout = Layout(run=tmp_path / "a 'quoted' rün; x")
    layout.logs.mkdir(parents=True)
    secrets.ensure(layout)
    programs.write(layout)
    options = ServerOptions()
    options.realize(["-c", str(layout.supervisor_config), "-n"])
    commands = {
        program.name: program.command
        for group in options.process_group_configs
        for program in group.process_configs
    }
    assert str(layout.mail) in shlex.split(commands["mail"])


def test_a_run_directory_that_supervisord_cannot_spell_is_refused(tmp_path: Path) -> None:
    """It expands % twice in some places and once in others."""
    with pytest.raises(StackError, match="50%"):
        programs.write(Layout(run=tmp_path / "50%"))


def test_a_long_run_directory_moves_the_socket(tmp_path: Path) -> None:
    """A socket's path holds 108 bytes."""
    assert Layout(run=tmp_path / ("x" * 120)).socket.parent != tmp_path / ("x" * 120)
    assert len(str(Layout(run=Path("/" + "x" * 300)).socket)) < 100


@pytest.mark.parametrize(
    ("replicas", "target"), [(1, "127.0.0.1:7102"), (2, "ipv4:127.0.0.1:7102,127.0.0.1:7112")]
)
def test_a_peers_target_names_every_instance(tmp_path: Path, replicas: int, target: str) -> None:
    assert Layout(run=tmp_path, replicas={"keys": replicas}).target("keys") == target
