"""`python -m tests.chaos.bound_files SIZE PID…`: let no file of these processes grow beyond SIZE bytes.

Only a process's own user may, not even root: so it becomes that user first, and is a process of its own.
"""

from __future__ import annotations

import os
import resource
import sys
from contextlib import suppress
from pathlib import Path


def main(size: int, *pids: int) -> None:
    """See the module. What has ended meanwhile is passed over."""
    owner = Path(f"/proc/{pids[0]}").stat()
    if owner.st_uid != os.geteuid():
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    for pid in pids:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
