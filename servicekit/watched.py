"""A file that may be replaced while a service runs: new contents take effect within a second.

Rotation without a restart relies on this. If a file becomes unreadable or invalid, the last good contents
stay in use and a line is logged; the first read must succeed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from servicekit import log
from servicekit.clock import Clock, SystemClock

T = TypeVar("T")

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at a file."""

_log = log.get("files")


class FileError(Exception):
    """A file cannot be read or is invalid. Names its path and quotes none of its contents."""


class WatchedFile(Generic[T]):
    """One file, or several that belong together, and what `parse` makes of their bytes.

    `parse` raises `ValueError` for wrong contents; its message is logged, so it must quote none of them.
    Checks the files' times at most once a second, and reads them only when the times have changed. Raises
    `FileError` when the first read fails.
    """

    def __init__(self, parse: Callable[..., T], *paths: Path, clock: Clock | None = None) -> None:
        self._parse = parse
        self._paths = paths
        self._clock = clock or SystemClock()
        self._looked = self._clock.monotonic()
        self._seen = self._stamps()
        self._value = self._read()

    def current(self) -> T:
        """The current contents. The same object until a file changes."""
        now = self._clock.monotonic()
        if now - self._looked >= LOOK_EVERY:
            self._looked = now
            stamps = self._stamps()
            if stamps != self._seen:
                self._reload(stamps)
        return self._value

    def _reload(self, stamps: tuple[tuple[int, int, int], ...]) -> None:
        try:
            self._value = self._read()
        except FileError as error:
            if self._seen != ():
                _log.error("a file is not usable; its last good contents stay in use", cause=str(error))
            # Tried again at each look: of files that belong together only one may be there yet.
            self._seen = ()
        else:
            self._seen = stamps
            _log.info("reloaded", files=[str(path) for path in self._paths])

    def _read(self) -> T:
        names = ", ".join(str(path) for path in self._paths)
        try:
            return self._parse(*(path.read_bytes() for path in self._paths))
        except OSError as error:
            raise FileError(f"{error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise FileError(f"{names}: {error}") from None

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0, 0)
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino)
