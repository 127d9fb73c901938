"""Which upstreams there are, and what is tolerated of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{0,63}")
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Upstream:
    """One sign server. `url` is its base, such as https://sign.example.com; `weight` its share.

    `name` stands in answers, logs and metrics in its place. `api_key` is sent as `X-Api-Key`.
    """

    name: str
    url: str
    weight: float = 1.0
    api_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Raise ValueError for a URL that is none, or that would send the key in clear."""
        if _NAME.fullmatch(self.name) is None:
            raise ValueError("an upstream's name has 1 to 64 letters, digits, dots, dashes and underscores")
        parts = urlsplit(self.url)
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise ValueError(f"upstream {self.name}: the URL must read https://host")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError(f"upstream {self.name}: the URL has no user info, query or fragment")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError(f"upstream {self.name}: http is for this machine alone; use https")
        if not 0 < self.weight <= 1e6:  # noqa: PLR2004  # far beyond any use
            raise ValueError(f"upstream {self.name}: the weight must be positive")

    @property
    def host(self) -> str:
        """The host alone, in lower case."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """See docs/engines.md. Times are seconds.

    `allowed_hosts` is the fixed list of where this engine may connect; every upstream is on one of
    them. `timeout` bounds one try, `attempts` how many there are. After `failures` failed tries in a
    row an upstream is left alone for `open_for`. `proof_age`: how long a signature counts as a proof
    that the upstream signs, so that canaries are not bought more often than that.
    """

    upstreams: tuple[Upstream, ...]
    allowed_hosts: frozenset[str]
    timeout: float = 3.0
    attempts: int = 3
    failures: int = 5
    open_for: float = 10.0
    max_concurrent: int = 64
    proof_age: float = 300.0

    def __post_init__(self) -> None:
        """Raise ValueError for what contradicts itself."""
        names = [upstream.name for upstream in self.upstreams]
        if not names or len(set(names)) != len(names):
            raise ValueError("there must be an upstream, and no two of one name")
        for upstream in self.upstreams:
            if upstream.host not in self.allowed_hosts:
                raise ValueError(f"upstream {upstream.name} is on none of the allowed hosts")
        if not (self.timeout > 0 and self.attempts >= 1 and self.failures >= 1 and self.open_for > 0):
            raise ValueError("timeout, attempts, failures and open_for must be positive")
        if self.max_concurrent < 1 or self.proof_age <= 0:
            raise ValueError("max_concurrent and proof_age must be positive")
