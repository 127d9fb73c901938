"""Traces where many share the work, and nothing at all where nobody is traced."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import StatusCode

from servicekit import tracing
from servicekit.errors import Unavailable

ONE = "00-11111111111111111111111111111111-1111111111111111-01"
TWO = "00-22222222222222222222222222222222-2222222222222222-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Spans stay in memory: sending them is tests/e2e/test_traces.py's."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    yield kept
    provider.shutdown()


def by_trace(exporter: InMemorySpanExporter, header: str) -> dict[str, ReadableSpan]:
    trace_id = int(header.split("-")[1], 16)
    return {
        span.name: span
        for span in exporter.get_finished_spans()
        if span.context is not None and span.context.trace_id == trace_id
    }


def test_nothing_is_recorded_or_sent_on_while_it_is_off() -> None:
    assert not tracing.enabled()
    assert tracing.parent(ONE) is None
    with tracing.child_of(ONE, "call", "SERVER") as here, tracing.span("inside") as inside:
        assert here is inside is None
        assert (tracing.traceparent(), tracing.traceparents(), tracing.trace_id()) == ("", [], "")


@pytest.mark.parametrize(
    "header",
    ["", ONE[:-2] + "00", "00-0-0-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "nonsense-01", "01"],
)
def test_what_is_not_sampled_or_not_well_formed_begins_no_trace(
    exporter: InMemorySpanExporter, header: str
) -> None:
    with tracing.child_of(header, "call", "SERVER") as here, tracing.span("inside"):
        assert here is None
    assert exporter.get_finished_spans() == ()


def test_a_span_is_below_its_caller_and_hands_itself_on(exporter: InMemorySpanExporter) -> None:
    with tracing.child_of(ONE, "call", "SERVER"):
        assert tracing.trace_id() == "1" * 32
        with tracing.span("inside", "CLIENT"):
            sent = tracing.traceparent()
    spans = by_trace(exporter, ONE)
    assert spans["call"].parent is not None
    assert spans["call"].parent.span_id == int("1" * 16, 16)
    assert spans["inside"].parent == spans["call"].context
    assert spans["inside"].context is not None
    assert sent == f"00-{'1' * 32}-{spans['inside'].context.span_id:016x}-01"
    assert tracing.traceparent() == ""


def test_what_several_share_is_in_each_ones_trace_with_a_link(exporter: InMemorySpanExporter) -> None:
    parents = [tracing.parent(ONE), None, tracing.parent(TWO), tracing.parent(ONE)]
    with tracing.shared("list", parents), tracing.span("publish", "PRODUCER"):
        handed_on = tracing.traceparents()
    original, copy = by_trace(exporter, ONE), by_trace(exporter, TWO)
    assert set(original) == set(copy) == {"list", "publish"}
    for name, span in copy.items():
        (link,) = span.links
        assert link.context == original[name].context
        assert not original[name].links
        assert (span.start_time, span.end_time) == (original[name].start_time, original[name].end_time)
    assert copy["publish"].parent == copy["list"].context
    assert [header.split("-")[1] for header in handed_on] == ["1" * 32, "2" * 32]
    assert len(exporter.get_finished_spans()) == 4


async def test_tasks_side_by_side_keep_their_own_span(exporter: InMemorySpanExporter) -> None:
    async def work(name: str) -> None:
        with tracing.span(name):
            await asyncio.sleep(0)
            with tracing.span(f"in {name}"):
                await asyncio.sleep(0)

    with tracing.child_of(ONE, "call", "SERVER"):
        await asyncio.gather(work("a"), work("b"))
    spans = by_trace(exporter, ONE)
    for name in ("a", "b"):
        assert spans[name].parent == spans["call"].context
        assert spans[f"in {name}"].parent == spans[name].context


def test_a_failure_is_told_by_its_reason_and_never_by_its_text(exporter: InMemorySpanExporter) -> None:
    with pytest.raises(Unavailable), tracing.child_of(ONE, "call", "SERVER"):
        raise Unavailable("sgk_live_canary", reason="REDIS_UNAVAILABLE")
    with pytest.raises(ValueError, match="canary"), tracing.child_of(ONE, "bug", "SERVER"):
        raise ValueError("canary")
    spans = by_trace(exporter, ONE)
    told = {name: (span.attributes or {}).get("error.type") for name, span in spans.items()}
    assert told == {"call": "REDIS_UNAVAILABLE", "bug": "ValueError"}
    for span in spans.values():
        assert span.status.status_code is StatusCode.ERROR
        assert "canary" not in span.to_json()
