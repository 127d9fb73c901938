"""The use cases: a caller's wishes, and the alerts they got."""

from __future__ import annotations

import base64
import secrets
from typing import Protocol
from urllib.parse import urlsplit

from servicekit.errors import InvalidArgument
from servicekit.principal import Principal
from services.logger.alerts.model import Alert, Wishes

MAX_URL = 2048


class Store(Protocol):
    """See `store.AlertStore`."""

    async def wishes(self, caller: Principal) -> Wishes: ...

    async def wish(self, caller: Principal, wishes: Wishes, secret: str | None) -> None: ...

    async def latest(self, caller: Principal) -> list[Alert]: ...


class AlertService:
    """Every method acts for one caller. `allow_private`: http and hosts of this network are taken too."""

    def __init__(self, store: Store, *, allow_private: bool = False) -> None:
        self._store = store
        self._allow_private = allow_private

    async def wishes(self, caller: Principal) -> Wishes:
        """How the caller wants to be told."""
        return await self._store.wishes(caller)

    async def wish(self, caller: Principal, wishes: Wishes, *, rotate_secret: bool) -> str:
        """Replace the caller's wishes; the webhook's secret if it is new, else "".

        Raises `InvalidArgument` for a URL that no webhook is sent to.
        """
        if wishes.webhook_url:
            self._check(wishes.webhook_url)
        before = await self._store.wishes(caller)
        fresh = bool(wishes.webhook_url) and (rotate_secret or wishes.webhook_url != before.webhook_url)
        # 192 random bits, in the form that Standard Webhooks gives secrets.
        secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}" if fresh else ""
        await self._store.wish(caller, wishes, secret or None)
        return secret

    async def latest(self, caller: Principal) -> list[Alert]:
        """The caller's alerts, newest first."""
        return await self._store.latest(caller)

    def _check(self, url: str) -> None:
        """What can be said of the URL itself; where its host leads is seen when it is called."""
        schemes = ("https", "http") if self._allow_private else ("https",)
        try:
            parts = urlsplit(url)
            good = parts.scheme in schemes and bool(parts.hostname) and (parts.port or 443) > 0
        except ValueError:
            good = False
        else:
            good = good and parts.username is None and parts.password is None and not parts.fragment
        if not good or len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
            raise InvalidArgument.field(
                "webhook_url",
                f"must be an https URL with a host, without a user or a fragment, of at most {MAX_URL}"
                " characters",
            )
