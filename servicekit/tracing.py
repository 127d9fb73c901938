"""Traces by OpenTelemetry, from the edge to the logger's insert. Off unless `SIGNGATE_OTLP_ENDPOINT` is set.

The edge decides which requests are traced, and says so in `traceparent` (W3C Trace Context). A service
begins no trace of its own: without a sampled `traceparent` it records nothing. While tracing is off the
packages are not even imported, and whoever wraps a call asks `enabled` once, when it is put together.

Work that many requests share, a list of the signer's or a batch of the logger's, is one span with many
parents, which OpenTelemetry does not know. So it belongs to the trace of the first of them, and what
happens inside is recorded there. Each further trace gets a copy of the span and of all inside this
process, with the same times and a link to the one that is copied.

Spans tell what was called, how long it took, and the stable reason of a failure. No error's text, no
argument, no credential, no query is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext, Tracer

HEADER: Final = "traceparent"
Kind = Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
_sampled: Final = "01"
_longest: Final = 128
"""Characters of a `traceparent`: version 00 has 55, and later ones may have some more."""
NOTHING: Final[AbstractContextManager[None]] = nullcontext()
"""The span of what is not traced."""


class Traced(NamedTuple):
    """A span that is going on, and its copies in the traces of others who share the work."""

    span: Span
    copies: tuple[Span, ...] = ()


_tracer: Tracer | None = None
_current: ContextVar[Traced | None] = ContextVar("signgate_trace", default=None)


def configure(service: str, version: str, endpoint: str) -> Callable[[], None]:
    """Record spans from now on, and send them to `endpoint` (host:port) by OTLP over gRPC.

    Call once, before anything is put together. Returns what sends the rest and ends it. Raises
    `ImportError` where the packages of the extra `trace` are missing.
    """
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased  # noqa: PLC0415

    global _tracer  # noqa: PLW0603  # one a process, as its log
    resource = Resource.create(
        {"service.name": service, "service.namespace": "signgate", "service.version": version}
    )
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True)))
    _tracer = provider.get_tracer("signgate", version)

    def end() -> None:
        global _tracer  # noqa: PLW0603  # likewise
        _tracer = None
        provider.shutdown()

    return end


def enabled() -> bool:
    """Whether this process records spans at all."""
    return _tracer is not None


def current() -> Traced | None:
    """What is traced here, to be the parent of what is done elsewhere. None: nothing."""
    return _current.get()


def traceparent() -> str:
    """The header by which a peer goes on with this trace; "" where nothing is traced."""
    here = _current.get()
    return "" if here is None else _format(here.span.get_span_context())


def traceparents() -> list[str]:
    """One for each trace that what is done here is part of: see `shared`."""
    here = _current.get()
    return [] if here is None else [_format(one.get_span_context()) for one in (here.span, *here.copies)]


def trace_id() -> str:
    """As logs and viewers write it; "" where nothing is traced."""
    here = _current.get()
    return "" if here is None else f"{here.span.get_span_context().trace_id:032x}"


def parent(header: str) -> Traced | None:
    """What a `traceparent` stands for. None unless it is well formed and sampled."""
    if _tracer is None or len(header) > _longest or not header.endswith(_sampled):
        return None
    from opentelemetry.trace import INVALID_SPAN, get_current_span  # noqa: PLC0415  # loaded by now
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415
        TraceContextTextMapPropagator,
    )

    span = get_current_span(TraceContextTextMapPropagator().extract({HEADER: header}))
    return None if span is INVALID_SPAN else Traced(span)


def span(
    name: str, kind: Kind = "INTERNAL", attributes: Mapping[str, str | int] | None = None
) -> AbstractContextManager[Traced | None]:
    """A part of what is traced here. Outside of a trace it is nothing, and costs next to nothing."""
    here = _current.get()
    return NOTHING if here is None else _child(here, name, kind, attributes)


def child_of(
    header: str, name: str, kind: Kind, attributes: Mapping[str, str | int] | None = None
) -> AbstractContextManager[Traced | None]:
    """What is done for a caller who sent `header`: their trace goes on here."""
    found = parent(header)
    return NOTHING if found is None else _child(found, name, kind, attributes)


def shared(
    name: str,
    parents: Iterable[Traced | None],
    kind: Kind = "INTERNAL",
    attributes: Mapping[str, str | int] | None = None,
) -> AbstractContextManager[Traced | None]:
    """What is done for several at once; see the module. `parents` may have gaps and repetitions."""
    if _tracer is None:
        return NOTHING
    found = {one.span.get_span_context().span_id: one.span for one in parents if one is not None}
    if not found:
        return NOTHING
    first, *others = found.values()
    return _child(Traced(first, tuple(others)), name, kind, attributes)


@contextmanager
def _child(
    above: Traced, name: str, kind: Kind, attributes: Mapping[str, str | int] | None
) -> Iterator[Traced | None]:
    from opentelemetry.trace import Link, SpanKind, Status, StatusCode  # noqa: PLC0415  # loaded by now
    from opentelemetry.trace import set_span_in_context as below  # noqa: PLC0415

    if _tracer is None:  # ended meanwhile
        yield None
        return
    options: dict[str, Any] = {"kind": SpanKind[kind], "attributes": attributes}
    span = _tracer.start_span(name, below(above.span), **options)
    copies = []
    for other in above.copies:
        options["links"] = [Link(span.get_span_context())]
        started = getattr(span, "start_time", None)
        copies.append(_tracer.start_span(name, below(other), start_time=started, **options))
    here = Traced(span, tuple(copies))
    token = _current.set(here)
    try:
        yield here
    except BaseException as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        for one in (span, *copies):
            one.set_attribute("error.type", str(reason))
            one.set_status(Status(StatusCode.ERROR))
        raise
    finally:
        _current.reset(token)
        span.end()
        for copy in copies:
            copy.end(getattr(span, "end_time", None))


def _format(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
