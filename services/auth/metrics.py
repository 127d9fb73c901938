"""What the auth service counts beside servicekit's metrics."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge

RATE_LIMITED: Final = Counter("signgate_auth_rate_limited", "Calls refused by a rate limit.", ("limit",))
MAILS: Final = Counter(
    "signgate_auth_mails", "Letters by what became of them: sent, refused, given_up.", ("outcome",)
)
MAILS_WAITING: Final = Gauge("signgate_auth_mails_waiting", "Letters that wait for the mail server.")
HASHES_WAITING: Final = Gauge("signgate_auth_hashes_waiting", "Passwords that wait to be hashed.")
HASHES_REFUSED: Final = Counter(
    "signgate_auth_hashes_refused",
    "Passwords not hashed: full (too many wait), or share (too many of that address do).",
    ("why",),
)
