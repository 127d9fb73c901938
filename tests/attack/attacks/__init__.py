"""Every attack there is."""

from __future__ import annotations

from tests.attack.attacks import addresses, exports, floods, frames, slow, streams
from tests.attack.attacks.base import Attack

ATTACKS: tuple[Attack, ...] = (
    *addresses.ATTACKS,
    *streams.ATTACKS,
    *slow.ATTACKS,
    *exports.ATTACKS,
    *frames.ATTACKS,
    *floods.ATTACKS,
)


def named(name: str) -> Attack:
    """The one of that name. Raises `KeyError`."""
    return {attack.name: attack for attack in ATTACKS}[name]
