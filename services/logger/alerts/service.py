"""The use cases: a caller's wishes, and the alerts they got."""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from typing import Final, Protocol
from urllib.parse import urlsplit

from servicekit.errors import InvalidArgument
from servicekit.outbound import NoPublicAddressError, Resolver, refused_literal
from servicekit.principal import Principal
from services.logger.alerts.model import Alert, Wishes

MAX_URL: Final = 2048
LOOK: Final = 2.0
"""Seconds that a new webhook's host may take to be looked up; after that it is judged when it is called."""
# A host's name, or an address of one of the two kinds; what parsers read in different ways is not among them.
HOST: Final = re.compile(r"[A-Za-z0-9_.\-]{1,253}|[0-9A-Fa-f:.]{2,45}")


class Store(Protocol):
    """See `store.AlertStore`."""

    async def wishes(self, caller: Principal) -> Wishes: ...

    async def wish(self, caller: Principal, wishes: Wishes, secret: str | None) -> None: ...

    async def latest(self, caller: Principal) -> list[Alert]: ...


class AlertService:
    """Every method acts for one caller. `allow_private`: http and hosts of this network are taken too.

    Without a `resolver`, host names are checked only when webhooks are sent.
    """

    def __init__(
        self, store: Store, *, allow_private: bool = False, resolver: Resolver | None = None
    ) -> None:
        self._store = store
        self._allow_private = allow_private
        self._resolver = resolver

    async def wishes(self, caller: Principal) -> Wishes:
        """How the caller wants to be told."""
        return await self._store.wishes(caller)

    async def wish(self, caller: Principal, wishes: Wishes, *, rotate_secret: bool) -> str:
        """Replace the caller's wishes; the webhook's secret if it is new, else "".

        Raises `InvalidArgument` for a URL that is malformed or whose host is not public.
        """
        if wishes.webhook_url:
            host, port = self._checked(wishes.webhook_url)
            if not self._allow_private:
                await self._judge(host, port)
        before = await self._store.wishes(caller)
        fresh = bool(wishes.webhook_url) and (rotate_secret or wishes.webhook_url != before.webhook_url)
        # 192 random bits, in the form that Standard Webhooks gives secrets.
        secret = f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}" if fresh else ""
        await self._store.wish(caller, wishes, secret or None)
        return secret

    async def latest(self, caller: Principal) -> list[Alert]:
        """The caller's alerts, newest first."""
        return await self._store.latest(caller)

    def _checked(self, url: str) -> tuple[str, int]:
        """The host and port. Says what can be said of the URL itself."""
        schemes = ("https", "http") if self._allow_private else ("https",)
        host, port, good = "", 443, False
        if len(url) <= MAX_URL and url.isascii() and url.isprintable() and not set(url) & set(' \\"<>'):
            try:
                parts = urlsplit(url)
                host, port = parts.hostname or "", parts.port or 443
            except ValueError:
                pass
            else:
                good = parts.scheme in schemes and parts.username is None and parts.password is None
                good = good and not parts.fragment and HOST.fullmatch(host) is not None
                good = good and ("[" in parts.netloc) == (":" in host)
        if not good:
            raise InvalidArgument.field(
                "webhook_url",
                f"must be an https URL with a host, without a user or a fragment, of at most {MAX_URL}"
                " characters",
            )
        return host, port

    async def _judge(self, host: str, port: int) -> None:
        """Refuse a host that is not public now; it is checked again when the webhook is sent."""
        public = not refused_literal(host)
        if public and self._resolver is not None:
            try:
                async with asyncio.timeout(LOOK):
                    await self._resolver.addresses(host, port)
            except NoPublicAddressError:
                public = False
            except (OSError, ValueError):
                pass  # no such name at present, or a slow name server
        if not public:
            raise InvalidArgument.field("webhook_url", "must have a public host", reason="WEBHOOK_NOT_PUBLIC")
