"""The engines of this process, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from services.signer.engines.base import Engine
from services.signer.engines.native import NativeEngine


class Engines:
    """Enabled engines; one is the default. Never empty.

    `native` stands apart as well: signatures are verified with it whether or not it signs here.
    """

    def __init__(self, engines: Sequence[Engine], *, default: str, native: NativeEngine) -> None:
        self._by_name = {engine.name: engine for engine in engines}
        if len(self._by_name) != len(engines):
            raise ValueError("two engines have one name")
        if default not in self._by_name:
            raise ValueError(f"the default engine {default!r} is not enabled")
        self.default = default
        self.native = native
        self.get = self._by_name.get

    def __getitem__(self, name: str) -> Engine:
        return self._by_name[name]

    def __iter__(self) -> Iterator[Engine]:
        return iter(self._by_name.values())
