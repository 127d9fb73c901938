"""Imports without what a package loads merely because it happens to be installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def absent(*modules: str) -> Iterator[None]:
    """As if these were not installed, but for those that are loaded already."""
    hidden = [module for module in modules if module not in sys.modules]
    for module in hidden:
        sys.modules[module] = None  # type: ignore[assignment]  # how `import` is told so
    try:
        yield
    finally:
        for module in hidden:
            del sys.modules[module]
