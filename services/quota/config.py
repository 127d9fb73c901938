"""The quota service's settings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from servicekit.trust import TokenSettings


class QuotaSettings(TokenSettings):
    """What the quota service is told. Times are seconds.

    `redis_timeout`: how long a call to Redis may take before it counts as failed. `breaker_failures`
    in a row open the circuit breaker: calls then fail at once, and one is tried every `breaker_reset`.
    `load_timeout`: how long a list may wait for PostgreSQL when one of its users must be loaded.
    `lease`: how long a reservation is held for the events to be published.
    `plans_interval`: how often plans and overrides are read; so soon does a change count.
    `sessions_redis_url`: a Redis user that may only look up signed-out sessions; without it, the service's
    own user is used.
    `shadow`: the pools whose limits are decided and reported but not enforced.
    """

    postgres_dsn: SecretStr
    redis_url: SecretStr
    sessions_redis_url: SecretStr | None = None
    keys_addr: str
    redis_timeout: Annotated[float, Field(gt=0, le=5)] = 0.08
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_reset: Annotated[float, Field(gt=0)] = 0.5
    load_timeout: Annotated[float, Field(gt=0, le=5)] = 0.5
    lease: Annotated[float, Field(ge=0.5, le=60)] = 5.0
    plans_interval: Annotated[float, Field(gt=0, le=60)] = 1.0
    shadow: Literal["", "free", "api_key", "all"] = ""
