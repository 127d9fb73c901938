"""What a running stack exports for Prometheus, and what docs/metrics.md says that it does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.layout import ROOT
from tests.conftest import Running

ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| (.+?) \| (.*) \|$", re.MULTILINE)


class Listed(NamedTuple):
    """A row of docs/metrics.md."""

    kind: str
    labels: frozenset[str]
    text: str


def listed(service: str) -> dict[str, Listed]:
    """What the page says that a service exports, by name."""
    sections = re.split(r"^## ", (ROOT / "docs" / "metrics.md").read_text("utf-8"), flags=re.MULTILINE)
    wanted = [
        part for part in sections if part.startswith(("Every service\n", "The process\n", f"{service}\n"))
    ]
    assert len(wanted) == 3
    return {
        name: Listed(kind, frozenset(re.findall(r"`(\w+)`", labels)), text)
        for part in wanted
        for name, kind, labels, text in ROW.findall(part)
    }


def exported(running: Running, service: str) -> dict[str, Metric]:
    """What a service's first instance exports, by name."""
    text = httpx.get(f"http://{running.address(service, 'metrics')}/metrics").raise_for_status().text
    found = text_string_to_metric_families(text)
    return {one.name + ("_total" if one.type == "counter" else ""): one for one in found}


def exported_by_the_edge(running: Running) -> Iterable[Metric]:
    """What Envoy exports."""
    text = httpx.get(running.edge_metrics_url).raise_for_status().text
    # The parser would put `_total` to the names of counters; Prometheus takes Envoy's as they are.
    return text_string_to_metric_families(
        re.sub(r"^(# TYPE \w+) counter$", r"\1 untyped", text, flags=re.MULTILINE)
    )
