"""Alerts, their runbook, and the dashboard, as far as it can be told without a running stack."""

from __future__ import annotations

import json
import re

import promql_parser as promql
import pytest
import yaml

from deploy import rendered
from deploy.local.layout import ROOT
from deploy.observability import dashboard
from deploy.settings import table
from tests.unit.deploy.rules import ALERTS, RECORDED, expressions, kept_labels, walk

HERE = ROOT / "deploy" / "observability"
RUNBOOK = (ROOT / "docs" / "operations.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^#|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
by_alert = pytest.mark.parametrize("alert", list(ALERTS))


@by_alert
def test_an_alert_leads_to_its_own_part_of_the_runbook(alert: str) -> None:
    """GitHub's anchor of a heading is the heading in small letters."""
    assert ALERTS[alert]["annotations"]["runbook_url"] == f"docs/operations.md#{alert.lower()}"
    assert alert in SECTIONS


@by_alert
def test_the_runbook_says_what_it_means_where_to_look_what_to_do_and_when_it_ends(alert: str) -> None:
    bold = re.findall(r"^\*\*(.+?)\*\*", SECTIONS[alert], re.MULTILINE)
    assert bold in (["Means", "Look at", "Do", "Ends"], ["Means", "Look at", "Ends"])


@by_alert
def test_an_alert_says_how_urgent_it_is_and_what_is_the_matter(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"] == {"severity": rule["labels"]["severity"]}
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert set(rule["annotations"]) == {"summary", "runbook_url"}


def test_the_runbook_has_no_part_without_an_alert() -> None:
    assert set(SECTIONS) == set(ALERTS)


@by_alert
def test_what_an_alert_says_of_a_label_is_a_label_that_it_has(alert: str) -> None:
    """Otherwise it would read: "not one  runs"."""
    said = set(re.findall(r"\$labels\.(\w+)", ALERTS[alert]["annotations"]["summary"]))
    kept = kept_labels(promql.parse(ALERTS[alert]["expr"]))
    assert kept is None or said <= kept


@pytest.mark.parametrize(("what", "expr"), list(expressions()))
def test_an_expression_is_promql_and_takes_rates_of_counters_alone(what: str, expr: str) -> None:
    for call in walk(promql.parse(expr)):
        if isinstance(call, promql.Call) and call.func.name in {"rate", "increase"}:
            name = call.args[0].vector_selector.name
            assert name.endswith(("_total", "_bucket", "_count")) or name.startswith("envoy_"), name


def test_what_prometheus_scrapes_is_every_part_by_the_names_that_alerts_use() -> None:
    jobs = {str(job["job_name"]) for job in rendered.scrape_configs()}
    assert jobs == {*table().services, "envoy"}
    absent = re.findall(r'absent\(up\{job="(\w+)"\}\)', ALERTS["SigngateServiceGone"]["expr"])
    assert sorted(absent) == sorted(jobs)


def test_requests_that_count_are_those_of_every_service_that_the_edge_routes() -> None:
    """A service of callers that the rule left out would fail unseen; one of ours would count twice."""
    inside = re.search(r'rpc!~"([^"]+)"', RECORDED["signgate:requests_failed:rate5m"])
    assert inside
    public = {name for service in table().services.values() for name in service.public}
    assert not [name for name in public if re.fullmatch(inside[1], f"{name}/Anything")]
    for name in ("signgate.keys.v1.KeyValidationService", "signgate.quota.v1.QuotaEnforcementService"):
        assert re.fullmatch(inside[1], f"{name}/Anything")


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard.written())["panels"]:
        place = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not mine & taken, panel["title"]
        assert max(x for x, _ in mine) < 24, panel["title"]
        taken |= mine


def test_the_dashboard_is_where_grafana_looks_for_it() -> None:
    provider = yaml.safe_load((HERE / "grafana/provisioning/dashboards/signgate.yaml").read_text("utf-8"))
    assert provider["providers"][0]["options"]["path"] == "/var/lib/grafana/dashboards"
    assert json.loads((HERE / "grafana/dashboards/signgate.json").read_text("utf-8"))["uid"] == "signgate"
