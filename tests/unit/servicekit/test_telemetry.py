"""The hot path's histogram counts as Prometheus' own does; calls are counted whoever serves them."""

import asyncio
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from servicekit.http import observed
from servicekit.telemetry import IN_FLIGHT, LoopHistogram


def test_buckets_are_cumulative_and_bounds_inclusive() -> None:
    histogram = LoopHistogram("t_seconds", "A test.", ("rpc",), (0.1, 1.0))
    series = histogram.series("r")
    for value in (0.05, 0.1, 0.5, 7.0):
        series.observe(value)

    def sample(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"rpc": "r", **labels})

    try:
        assert sample("t_seconds_bucket", le="0.1") == 2
        assert sample("t_seconds_bucket", le="1.0") == 3
        assert sample("t_seconds_bucket", le="+Inf") == 4
        assert sample("t_seconds_count") == 4
        assert sample("t_seconds_sum") == 7.65
        assert histogram.series("r") is series
    finally:
        REGISTRY.unregister(histogram)


async def test_an_http_request_is_in_flight_and_then_counted_by_its_status() -> None:
    """The signer's autoscaling looks at requests in flight: those of its HTTP face are requests too."""
    go_on = asyncio.Event()

    async def handler(request: object) -> SimpleNamespace:
        await go_on.wait()
        if request == "bad":
            raise RuntimeError
        return SimpleNamespace(status_code=201)

    handle = observed("http/a-test", handler)

    def served(status: str) -> float | None:
        labels = {"rpc": "http/a-test", "code": status}
        return REGISTRY.get_sample_value("signgate_rpc_duration_seconds_count", labels)

    before = IN_FLIGHT.value
    requests = [asyncio.ensure_future(handle(which)) for which in ("good", "bad")]
    await asyncio.sleep(0)
    assert IN_FLIGHT.value == before + 2
    assert REGISTRY.get_sample_value("signgate_rpc_in_flight") == before + 2
    go_on.set()
    with pytest.raises(RuntimeError):
        await asyncio.gather(*requests)
    assert IN_FLIGHT.value == before
    assert (served("201"), served("500")) == (1, 1)
