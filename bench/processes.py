"""What processes cost, by the operating system's accounting: CPU time and memory."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil

LOAD = "load"
"""The name under which the load generator's own time stands: that of this process' ended children."""


LEAST = 0.0005
"""Milliseconds below which a process is not listed: a tick of the accounting over a whole run."""


@dataclass
class Cost:
    """CPU seconds by process, of one stretch of time."""

    seconds: dict[str, float] = field(default_factory=dict)

    def milliseconds_each(self, count: int) -> dict[str, float]:
        """CPU milliseconds a request, by process; those that cost nothing are left out."""
        each = {name: seconds * 1000 / count for name, seconds in self.seconds.items()}
        return {name: round(ms, 4) for name, ms in each.items() if ms >= LEAST}


def cpu(processes: Mapping[str, int]) -> dict[str, float]:
    """CPU seconds so far of each process and all below it, ended children included, by name."""
    found = {name: _tree(pid) for name, pid in processes.items()}
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found | {LOAD: children.ru_utime + children.ru_stime}


@contextmanager
def accounted(processes: Mapping[str, int]) -> Iterator[Cost]:
    """The cost of the block; filled in at its end."""
    before = cpu(processes)
    cost = Cost()
    yield cost
    after = cpu(processes)
    cost.seconds = {name: after[name] - before[name] for name in after}


def resident(pid: int) -> float:
    """Megabytes (10^6) resident now."""
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def peak(pid: int) -> float:
    """Megabytes resident at most, ever."""
    with open(f"/proc/{pid}/status", encoding="ascii") as status:  # noqa: PTH123  # no file of ours
        lines = dict(line.split(":", 1) for line in status)
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e6


def _tree(pid: int) -> float:
    total = 0.0
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total
