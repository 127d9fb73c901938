"""The upstream engine: other sign servers that speak the same HTTP contract.

config   which, how often each, and what is tolerated
answers  what an upstream may answer, and what is refused of it
client   one upstream: one request, its circuit breaker, its rests
engine   `Engine`, over several of them, with retries; what it stands on takes six megabytes, so it is
         imported where it is enabled, and not from here
"""

from services.signer.engines.upstream import metrics  # there from the start, as every other engine's
from services.signer.engines.upstream.config import Upstream, UpstreamConfig

__all__ = ["Upstream", "UpstreamConfig", "metrics"]
