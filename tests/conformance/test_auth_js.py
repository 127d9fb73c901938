"""The unmodified `@supabase/auth-js` from npm, through the edge, by the environment's own Node."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local.layout import ROOT
from tests.conformance.conftest import HERE, outcomes_of
from tests.conftest import Running

SOURCE = HERE / "auth-js"
PACKAGES = ("package.json", "package-lock.json", ".npmrc")
BIN = Path(sys.executable).parent
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def flows() -> list[str]:
    """The members of the driver's FLOWS."""
    members = (SOURCE / "driver.mjs").read_text(encoding="utf-8").partition("const FLOWS = {")[2]
    return re.findall(r"^  (?:async )?([a-z_]+)(?:\(\) \{|: \(\) =>)", members, re.MULTILINE)


def environment() -> Path:
    """A folder with just what the lock file names: made once, kept in .build."""
    digest = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in PACKAGES)).hexdigest()[:12]
    folder = ROOT / ".build" / "conformance" / f"auth-js-{digest}"
    stamp = folder / "complete"
    if not stamp.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in PACKAGES:
            shutil.copy(SOURCE / name, folder)
        told = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
        # npm trusts its own list of authorities; where this machine keeps one, that is the one to trust.
        if AUTHORITIES.exists():
            told.setdefault("NODE_EXTRA_CA_CERTS", str(AUTHORITIES))
        subprocess.run([str(BIN / "npm"), "ci", "--silent"], cwd=folder, env=told, check=True)
        stamp.touch()
    shutil.copy(SOURCE / "driver.mjs", folder)  # modules are looked for beside who imports them
    return folder


@pytest.fixture(scope="session")
def outcomes(running: Running, service_role: str) -> dict[str, str]:
    folder = environment()
    url, mails = f"{running.edge_url}/auth/v1", str(running.mail_folder)
    return outcomes_of([str(BIN / "node"), "driver.mjs", url, mails, service_role], folder)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("flow", flows())
def test_flow(outcomes: dict[str, str], flow: str) -> None:
    assert outcomes[flow] == ""


def test_every_flow_that_ran_was_looked_at(outcomes: dict[str, str]) -> None:
    assert sorted(outcomes) == sorted(flows())
