"""What a running stack exports is what docs/metrics.md lists, name for name, and back."""

from __future__ import annotations

import re

import pytest

from deploy.settings import table
from tests.conftest import Running
from tests.e2e.exporters import exported, listed


@pytest.mark.parametrize("service", list(table().services))
def test_a_service_exports_what_is_listed_and_nothing_else(running: Running, service: str) -> None:
    told = {name: (one.kind, one.text) for name, one in listed(service).items()}
    assert {name: (one.type, one.documentation) for name, one in exported(running, service).items()} == told


@pytest.mark.parametrize("service", list(table().services))
def test_every_event_loop_is_looked_at(running: Running, service: str) -> None:
    def looks() -> float:
        family = exported(running, service)["signgate_event_loop_delay_seconds"]
        return sum(sample.value for sample in family.samples if sample.name.endswith("_count"))

    before = looks()
    running.eventually(lambda: looks() > before, 30, "another look at the event loop")


@pytest.mark.parametrize("service", list(table().services))
def test_labels_are_the_listed_ones_and_hold_no_caller(running: Running, service: str) -> None:
    """An id, an address or a key in a label would be a leak, and a series for each caller."""
    told = listed(service)
    for name, family in exported(running, service).items():
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == told[name].labels, sample
            for value in sample.labels.values():
                assert "@" not in value
                assert "sgk_" not in value
                assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", value), sample
