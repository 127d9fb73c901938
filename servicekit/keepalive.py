"""How soon an idle connection to a store is found to lead nowhere.

A server that is killed with its network, or a machine that is switched off, ends no connection: without
probes the next request finds out, and fails. Systems probe after two hours by default.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

_wanted: Final = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
OPTIONS: Final[Mapping[int, int]] = {
    getattr(socket, name): value for name, value in _wanted.items() if hasattr(socket, name)
}
"""Of TCP, for `setsockopt`, where the system has them: found out within five seconds."""


def keep_alive(connection: socket.socket) -> None:
    """Have a TCP connection probed while nothing is said; others are left as they are."""
    if connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in OPTIONS.items():
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
