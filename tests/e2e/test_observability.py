"""What alerts and dashboard ask for is there in what a running stack exports, metrics and labels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import httpx
import promql_parser as promql
import pytest

from deploy.settings import table
from signgate_client import Signgate
from tests.conftest import Running
from tests.e2e.conftest import Account
from tests.e2e.exporters import exported, exported_by_the_edge, listed
from tests.unit.deploy.rules import RECORDED, expressions, selectors, walk

Samples = Mapping[str, list[Mapping[str, str]]]
"""The labels of every series, by the name that PromQL knows it by."""
SCRAPED = {"job", "instance"}
OF_PROMETHEUS = {"up": SCRAPED, "ALERTS": {"alertname", "alertstate", "severity"}}
NAMED = {"rpc", "state", "engine", "envoy_cluster_name", "envoy_http_conn_manager_prefix"}
"""Labels whose values are names of ours, and are there as soon as there was traffic."""


@pytest.fixture(scope="module")
def samples(running: Running, new_account: Callable[[], Account]) -> Samples:
    """All that is exported, once there was a request of each kind."""
    account = new_account()
    with Signgate(running.edge, api_key=account.key) as signgate:
        signgate.sign("@observed")
    key = {"x-api-key": account.key}
    body = {"url": "https://www.tiktok.com/@observed/live"}
    httpx.post(f"{running.edge_url}/webcast/sign_url", json=body, headers=key).raise_for_status()
    return _scrape(running)


@pytest.fixture(scope="module")
def labels(samples: Samples) -> Mapping[str, set[str]]:
    """The labels that each series has: of ours by the list of metrics, of Envoy's as seen."""
    seen = {name: set().union(*found) if found else set() for name, found in samples.items()}
    for service in table().services:
        for name, one in listed(service).items():
            ends = ("_bucket", "_count", "_sum") if one.kind == "histogram" else ("",)
            for end in ends:
                assert name + end in seen, name
                seen[name + end] = set(one.labels) | ({"le"} if end == "_bucket" else set())
    return {name: found | SCRAPED for name, found in seen.items()} | OF_PROMETHEUS


@pytest.mark.parametrize(("what", "expr"), list(expressions()))
def test_it_asks_for_what_is_there(
    what: str, expr: str, samples: Samples, labels: Mapping[str, set[str]]
) -> None:
    tree = promql.parse(expr)
    for selector in selectors(tree):
        if selector.name in RECORDED:
            continue
        assert selector.name in labels, selector.name
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels[selector.name], (selector.name, matcher.name)
            if matcher.name in NAMED and str(matcher.op) in {"MatchOp.Equal", "MatchOp.Re"}:
                values = {series.get(matcher.name, "") for series in samples[selector.name]}
                assert any(re.fullmatch(matcher.value, value) for value in values), (matcher.value, values)
    for part in walk(tree):
        if isinstance(part, promql.AggregateExpr) and part.modifier:
            for selector in selectors(part):
                assert set(part.modifier.labels) <= labels[selector.name], (
                    selector.name,
                    part.modifier.labels,
                )


def _scrape(running: Running) -> Samples:
    families = [one for service in table().services for one in exported(running, service).values()]
    found: dict[str, list[Mapping[str, str]]] = {}
    for family in [*families, *exported_by_the_edge(running)]:
        kinds = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        for end in kinds.get(family.type, ("",)):
            found.setdefault(family.name + end, [])  # also where there are no series yet
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found
