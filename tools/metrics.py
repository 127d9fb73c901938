"""Writes docs/metrics.md: every metric, by the process that exports it, in the words of its declaration.

`--check` compares instead, and fails on a difference. What a running stack exports is held against the
page by tests/e2e/test_metrics.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from prometheus_client import REGISTRY

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
SERVICES = ("auth", "keys", "quota", "signer", "logger")
HEAD = """\
# Metrics

Every process of Signgate serves them for Prometheus at `/metrics`, on a port of its own that the edge never
routes to (`metrics` in [deploy/settings.toml](../deploy/settings.toml)). Which service and which instance a
series is of, Prometheus adds when it scrapes: `job` and `instance`. No label holds a user, a key or anything
that a caller chooses. What the alerts make of them is in [operations.md](operations.md).

This page is made by `make gen` from the declarations in the code; a test holds it against what a running
stack exports.
"""
EDGE = """
## The edge

Envoy's own, at `/metrics` on its port for that (`envoy_metrics`). [Envoy's
manual](https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cluster_stats) says
what they tell. The edge's HTTP connection manager is `edge`; a cluster is named for the service it leads to.
"""


class Metric(NamedTuple):
    """One family of series, as it is declared."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def declared() -> Iterator[Metric]:
    """What the registry has now, in the order of declaration."""
    # The library tells labels by series only, and most have none yet.
    for collector in list(REGISTRY._collector_to_names):  # noqa: SLF001  # see above
        known = getattr(collector, "_labelnames", ()) or getattr(collector, "_labels", ())
        for family in getattr(collector, "describe", collector.collect)():
            labels = tuple(known) or tuple(family.samples[0].labels if family.samples else ())
            suffix = "_total" if family.type == "counter" else ""
            yield Metric(family.name + suffix, family.type, labels, family.documentation)


def catalogue() -> dict[str, list[Metric]]:
    """All metrics: of the process as such, of every service, and of each service alone.

    For a process that has imported nothing of Signgate's yet.
    """
    found = {"process": list(declared())}
    known = set(found["process"])
    modules = {"every": ["servicekit.telemetry"]}
    modules |= {name: [f"services.{name}.metrics", f"services.{name}.server"] for name in SERVICES}
    for part, names in modules.items():
        for name in names:
            import_module(name)
        found[part] = [metric for metric in declared() if metric not in known]
        known.update(found[part])
    return found


def page() -> str:
    """The text of docs/metrics.md."""
    found = catalogue()
    parts = [HEAD, "\n## Every service\n\n", *_table(found["every"])]
    for service in SERVICES:
        parts += [f"\n## {service}\n\n", *_table(found[service])]
    parts += ["\n## The process\n\nOf the Python client library.\n\n", *_table(found["process"])]
    parts += [EDGE]
    return "".join(parts)


def _table(metrics: Iterable[Metric]) -> Iterator[str]:
    yield "| metric | type | labels | what it tells |\n|---|---|---|---|\n"
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
        yield f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |\n"


def main() -> int:
    """See the module."""
    text = page()
    if sys.argv[1:] == ["--check"]:
        if PAGE.read_text(encoding="utf-8") != text:
            print("docs/metrics.md is not what the code declares: run `make gen`", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
