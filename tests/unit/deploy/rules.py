"""What alerts, recording rules and the dashboard ask Prometheus, taken apart by its own grammar."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
import yaml

from deploy.local.layout import ROOT
from deploy.observability import dashboard

GROUPS = [
    group
    for file in sorted((ROOT / "deploy" / "observability" / "rules").glob("*.yaml"))
    for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "record" in rule}


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression that there is, by what it is for."""
    for panel in json.loads(dashboard.written())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m")
    yield from RECORDED.items()
    for name, rule in ALERTS.items():
        yield name, rule["expr"]


def walk(expr: Any) -> Iterator[Any]:
    """An expression and all that it is made of."""
    yield expr
    for name in ("lhs", "rhs", "expr", "vector_selector"):
        if (part := getattr(expr, name, None)) is not None:
            yield from walk(part)
    for part in getattr(expr, "args", ()):
        yield from walk(part)


def selectors(expr: Any) -> list[Any]:
    """The metrics it reads, each with its matchers."""
    return [part for part in walk(expr) if isinstance(part, promql.VectorSelector)]


def kept_labels(expr: Any) -> set[str] | None:
    """The labels that its series have; None: whatever the metric has."""
    match expr:
        case promql.ParenExpr() | promql.UnaryExpr():
            return kept_labels(expr.expr)
        case promql.AggregateExpr():
            return set(expr.modifier.labels) if expr.modifier else set()
        case promql.Call() if expr.func.name == "absent":
            return {matcher.name for matcher in expr.args[0].matchers.matchers}
        case promql.Call() if expr.func.name == "vector":
            return set()
        case promql.Call():
            return kept_labels(expr.args[-1])
        case promql.BinaryExpr():
            sides = [kept_labels(side) for side in (expr.lhs, expr.rhs) if not is_scalar(side)]
            known = [labels for labels in sides if labels is not None]
            if str(expr.op) == "or" and known:
                return set.intersection(*known)
            return sides[0]
    return None


def is_scalar(expr: Any) -> bool:
    """A number without labels."""
    if isinstance(expr, promql.BinaryExpr):
        return is_scalar(expr.lhs) and is_scalar(expr.rhs)
    return isinstance(expr, promql.NumberLiteral) or (
        isinstance(expr, promql.Call) and expr.func.name == "time"
    )
