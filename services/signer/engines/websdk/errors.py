"""What goes wrong with a browser and a script.

EngineUnavailable
├── Misconfigured   the script, the function or the browser is not what the configuration says
└── PageLost        the page died or was given up; the same request may succeed in another
"""

from __future__ import annotations

from services.signer.errors import EngineUnavailable


class Misconfigured(EngineUnavailable):
    """Nothing that passes by itself: somebody must change the configuration."""

    reason = "ENGINE_MISCONFIGURED"

    told = "The engine is not configured rightly; the signer's log says how."
    """For callers: anyone may ask whether an engine is ready. The message is for operators."""


class PageLost(EngineUnavailable):
    """The page crashed, was closed, or did not answer in time."""
