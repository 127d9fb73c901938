"""Every metric that servicekit gives a service, and the page that Prometheus reads.

A metric's text says what there is to know of it: /metrics has it as HELP, and docs/metrics.md, the list of
all of them, is made from it. `rpc` is the full method name, or `http/` and the route. No label holds a
user, a key or anything a caller chooses.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from prometheus_client import REGISTRY, Counter, Gauge, disable_created_metrics, start_http_server
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from servicekit.config import Address

# Seconds. Fine around a millisecond, where calls within one machine are.
BUCKETS: Final = (
    0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
SIZES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


class Series:
    """One histogram series. `observe` is for one event loop's thread: it takes no lock."""

    __slots__ = ("_bounds", "counts", "observe", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        counts = self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self._bounds = bounds

        def observe(value: float) -> None:
            counts[bisect_left(bounds, value)] += 1
            self.total += value

        self.observe = observe


class LoopHistogram(Collector):
    """A histogram for the hot path: a bisect and two additions an observation.

    The library's own takes two locks and walks the buckets, several microseconds on each call.
    Series must be observed from one thread; the scrape may run in another and can at worst miss
    an observation that happens meanwhile.
    """

    def __init__(self, name: str, text: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self._name, self._text, self._labels, self._bounds = name, text, labels, bounds
        self._series: dict[tuple[str, ...], Series] = {}
        REGISTRY.register(self)

    def series(self, *values: str) -> Series:
        """The series of these label values, made at the first call. Keep it; don't look it up hot."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Series(self._bounds)
        return found

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Names without values, for the registry's check of duplicates."""
        return [HistogramMetricFamily(self._name, self._text, labels=self._labels)]

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """All series, as Prometheus wants them."""
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for values, series in list(self._series.items()):
            running, buckets = 0, []
            for bound, count in zip((*map(str, self._bounds), "+Inf"), list(series.counts), strict=True):
                running += count
                buckets.append((bound, running))
            family.add_metric(values, buckets, sum_value=series.total)
        yield family


class Level:
    """A number that goes up and down, for one event loop's thread: a plain addition each time."""

    __slots__ = ("value",)

    def __init__(self, gauge: Gauge) -> None:
        self.value = 0
        gauge.set_function(lambda: self.value)


RPC_DURATION: Final = LoopHistogram(
    "signgate_rpc_duration_seconds",
    "Served calls by their outcome: a gRPC code, or an HTTP status. Rate, errors and duration in one.",
    ("rpc", "code"),
    BUCKETS,
)
IN_FLIGHT: Final = Level(Gauge("signgate_rpc_in_flight", "Calls being served now, by gRPC and by HTTP."))
PEER_DURATION: Final = LoopHistogram(
    "signgate_peer_duration_seconds",
    "Calls to other services, as this one saw them.",
    ("rpc", "code"),
    BUCKETS,
)
BATCH_SIZE: Final = LoopHistogram(
    "signgate_batch_size", "Members of each list that ran.", ("batcher",), SIZES
)
BATCH_WAITING: Final = Gauge("signgate_batch_waiting", "Members waiting for the next list.", ("batcher",))
BATCH_REFUSED: Final = Counter(
    "signgate_batch_refused", "Members never run: full, share, late or closed.", ("batcher", "why")
)
CREDENTIALS: Final = Counter(
    "signgate_credentials",
    "Credentials looked at here: jwt or key (signer: what it refuses before its line), and OK or the"
    " refusal's reason; of service, other services' credentials, the refused ones alone.",
    ("kind", "outcome"),
)
POSTGRES_CONNECTIONS: Final = Gauge(
    "signgate_postgres_pool_connections", "Connections of a pool: in_use or idle.", ("pool", "state")
)
POSTGRES_MAX: Final = Gauge(
    "signgate_postgres_pool_connections_max", "The most connections that a pool opens.", ("pool",)
)
POSTGRES_WAIT: Final = LoopHistogram(
    "signgate_postgres_pool_wait_seconds", "Waits for a free connection of a pool.", ("pool",), BUCKETS
)
POSTGRES_FAILURES: Final = Counter(
    "signgate_postgres_failures", "Uses of PostgreSQL that found it, or the pool, not available."
)
REDIS_CONNECTIONS: Final = Gauge(
    "signgate_redis_pool_connections", "Connections of a pool: in_use or idle.", ("pool", "state")
)
REDIS_MAX: Final = Gauge(
    "signgate_redis_pool_connections_max", "The most connections that a pool opens, to each node.", ("pool",)
)
REDIS_FAILURES: Final = Counter(
    "signgate_redis_failures", "Uses of Redis that found it not available, or not taking writes."
)
LOOP_DELAY: Final = LoopHistogram(
    "signgate_event_loop_delay_seconds",
    "How late the event loop runs what is due, looked at twice a second: a process that has no time left.",
    (),
    BUCKETS,
)
READY: Final = Gauge("signgate_ready", "1 when that readiness check last passed.", ("check",))
BUILD: Final = Gauge("signgate_build_info", "Always 1.", ("service", "version"))


def package_version() -> str:
    """The installed distribution's version, "unknown" in a bare source tree."""
    try:
        return version("signgate")
    except PackageNotFoundError:
        return "unknown"


class MetricsServer:
    """The `/metrics` page, served by a separate thread so that a busy loop cannot starve it.

    `/livez` and `/readyz` answer 200 or 503, for a kubelet, whose gRPC probes do not support TLS.
    """

    def __init__(
        self,
        address: Address,
        alive: Callable[[], bool] = lambda: True,
        ready: Callable[[], bool] = lambda: False,
    ) -> None:
        # A series more for each counter, of a moment that nobody asks about.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._server, self._thread = start_http_server(address.port, address.host)
        metrics = self._server.get_app()
        probes = {"/livez": alive, "/readyz": ready}

        def answer(environ: dict[str, Any], start: Any) -> Any:
            probe = probes.get(environ["PATH_INFO"])
            if probe is None:
                return metrics(environ, start)  # type: ignore[misc]  # it has had one since it was made
            start("200 OK" if probe() else "503 Service Unavailable", [("content-type", "text/plain")])
            return [b""]

        self._server.set_app(answer)
        self.address = Address(address.host, self._server.server_port)

    def close(self) -> None:
        """Stop serving and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
