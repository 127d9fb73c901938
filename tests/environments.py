"""Python environments beside the project's own, for programs that are not to share its packages."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

from deploy.local.layout import ROOT


def environment(lock: Path) -> Path:
    """The Python of an environment with just what a lock file names: made once, kept in .build."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    folder = ROOT / ".build" / lock.parent.name / f"{lock.stem}-{digest}"
    python, stamp = folder / "bin" / "python", folder / "complete"
    if not stamp.exists():
        uv = [str(Path(sys.executable).with_name("uv"))]
        told = os.environ | {"UV_SYSTEM_CERTS": "true"}
        subprocess.run(
            [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True, env=told
        )
        install = ["pip", "install", "--quiet", "--require-hashes", "--python", str(python), "-r", str(lock)]
        subprocess.run([*uv, *install], check=True, env=told)
        stamp.touch()
    return python
