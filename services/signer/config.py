"""The signer's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from servicekit.config import ListenAddress
from servicekit.trust import TokenSettings
from services.signer.config_engines import EngineSettings
from services.signer.streams import StreamLimits


class SignerSettings(TokenSettings, EngineSettings):
    """What the signer is told. Times are seconds unless their name says otherwise.

    `signing_keys_file`: the native engine's keys, as `python -m servicekit.keyset` makes them; a
    rotation in it is seen within a second.
    `engines`: the enabled ones; requests that name none, of keys that name none, go to
    `default_engine`.
    `max_list`: the most requests that pass the line together. `max_waiting`: the most that wait for
    it; one more is refused with OVERLOADED. `max_streamed` and `max_streamed_waiting`: the same for requests
    that come by SignStream, of which each call has 256 in the line at most. `max_batches` and
    `max_batches_waiting`: the same for SignBatch calls. Of each, one account has at most as many as are still
    free; one more is refused with ACCOUNT_BUSY.
    `max_unproven`: the most requests and opening streams whose credential this process has not yet seen as
    valid; of these, one client address has at most as many as are still free.
    `streams`, `streams_by_user`, `streams_by_key`: how many SignStream calls may be open; one more is refused
    with STREAM_LIMIT. A login's session counts as a key.
    `stream_first_message`: how soon a stream must send its first request. `stream_idle`: how long it may
    then send nothing. `stream_stall`: how long its client may read nothing. `stream_recheck`: how often the
    credential of a stream that does nothing is validated again.
    `settle`: turns of the event loop without an arrival after which a list under load leaves.
    `max_wait`: how long a request without a nearer deadline may take in all.
    `peer_timeout`, `redis_timeout`: how long one call to a peer, or to Redis, may take.
    `sessions_redis_url`: a Redis user that may only look up signed-out sessions; without it, the service's
    own user is used.
    `usage_shards`: how many usage streams there are; the same number as the logger's.
    `usage_backlog_bytes`: what one usage stream may take up in Redis; beyond it requests are refused
    with USAGE_BACKLOG, and nothing is charged, until the loggers have caught up. The same number as
    the logger's, which warns long before; all shards together must fit well within Redis's memory.
    `canary_interval`: how often each engine signs a URL to see that it can.
    """

    redis_url: SecretStr
    sessions_redis_url: SecretStr | None = None
    keys_addr: str
    quota_addr: str
    http_listen: ListenAddress | None = None
    signing_keys_file: Path
    engines: tuple[str, ...] = ("native",)
    default_engine: str = "native"
    native_ttl: Annotated[float, Field(ge=10, le=86_400)] = 300.0
    max_list: Annotated[int, Field(ge=1, le=1000)] = 128
    max_waiting: Annotated[int, Field(ge=1)] = 2048
    max_streamed: Annotated[int, Field(ge=1, le=1000)] = 256
    max_streamed_waiting: Annotated[int, Field(ge=1)] = 16_384
    max_batches: Annotated[int, Field(ge=1, le=100)] = 8
    max_batches_waiting: Annotated[int, Field(ge=1)] = 256
    max_unproven: Annotated[int, Field(ge=1)] = 1024
    streams: Annotated[int, Field(ge=1)] = 2048
    streams_by_user: Annotated[int, Field(ge=1)] = 64
    streams_by_key: Annotated[int, Field(ge=1)] = 32
    stream_first_message: Annotated[float, Field(gt=0, le=300)] = 10.0
    stream_idle: Annotated[float, Field(gt=0, le=86_400)] = 300.0
    stream_stall: Annotated[float, Field(gt=0, le=300)] = 30.0
    stream_recheck: Annotated[float, Field(gt=0, le=60)] = 2.0
    settle: Annotated[int, Field(ge=0, le=100)] = 8
    max_wait: Annotated[float, Field(gt=0)] = 5.0
    peer_timeout: Annotated[float, Field(gt=0)] = 2.0
    redis_timeout: Annotated[float, Field(gt=0)] = 1.0
    usage_shards: Annotated[int, Field(ge=1, le=1024)] = 4
    usage_backlog_bytes: Annotated[int, Field(ge=1_000_000)] = 67_108_864
    canary_interval: Annotated[float, Field(gt=0)] = 15.0

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.default_engine not in self.engines:
            raise ValueError("default_engine is not one of engines")
        if (
            self.max_list > self.max_waiting
            or self.max_streamed > self.max_streamed_waiting
            or self.max_batches > self.max_batches_waiting
        ):
            raise ValueError("a list is no longer than what may wait")
        return self

    def stream_limits(self) -> StreamLimits:
        """What open streams may hold, and for how long."""
        return StreamLimits(
            total=self.streams,
            by_user=self.streams_by_user,
            by_key=self.streams_by_key,
            first_message=self.stream_first_message,
            idle=self.stream_idle,
            stall=self.stream_stall,
            recheck=self.stream_recheck,
        )
