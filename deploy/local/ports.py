"""Is a port free, who has it, and what is left over from a stack that did not end well."""

from __future__ import annotations

import socket
from contextlib import suppress

import psutil

from deploy.local.errors import StackError
from deploy.local.layout import HOST, Layout
from deploy.local.unprivileged import PostgresHome

MARK = "SIGNGATE_STACK"
"""Every process of a stack has this variable: the run directory it belongs to."""


def check(layout: Layout) -> None:
    """Raises `StackError` naming each port that is taken, and by whom if that can be found out."""
    taken = [(name, port) for name, port in layout.all_ports() if not _free(port)]
    if not taken:
        return
    lines = [f"  {port} ({name}) is taken by {_holder(port)}" for name, port in taken]
    raise StackError(
        "These ports are in use:\n"
        + "\n".join(lines)
        + "\nStop what holds them, or use others: make up SIGNGATE_PORT_SHIFT=1000"
    )


def stop_leftovers(layout: Layout) -> list[str]:
    """End what a killed supervisord of this stack left running; returns what was ended, for the reader."""
    found = [process for process in psutil.process_iter() if _belongs(process, layout)]
    told = [f"{process.name()} (process {process.pid})" for process in found]
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(found, timeout=10)
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=5)
    return told


def _belongs(process: psutil.Process, layout: Layout) -> bool:
    try:
        if process.environ().get(MARK) == str(layout.run):
            return True
        # PostgreSQL writes its status over its environment, but names its data directory.
        line = process.cmdline()
        return line[:1] != [] and line[0].endswith("/postgres") and str(PostgresHome(layout).data) in line
    except (psutil.Error, OSError):
        return False


def _free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a connection that is only timing out does not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return "a process of another user"
