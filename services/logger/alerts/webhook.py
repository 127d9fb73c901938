"""Alerts as webhooks: signed as Standard Webhooks tells, and sent to public addresses only.

The URL is a stranger's. So its host is resolved here, each address must be a public one, and the request
goes to that very address: a name that leads inside, or comes to after it was looked at, reaches nothing.
Redirects are not followed; of the answer only the status counts, and no more than its head is read. Each
request has a connection of its own: hosts that share an address don't share one whose certificate is another
host's.
"""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from standardwebhooks import Webhook

from servicekit import log as logging
from servicekit.addresses import is_public
from servicekit.clock import Clock
from servicekit.outbound import NoPublicAddressError, Resolver
from services.logger.alerts.model import Due, State

if TYPE_CHECKING:
    import httpx

__all__ = ["TIMEOUT", "NoPublicAddressError", "Webhooks", "is_public", "payload"]

TIMEOUT: Final = 10.0
"""Seconds for all of it: look-up, connection, request and the head of the answer."""
GONE: Final = 410
log = logging.get("alerts")


class Webhooks:
    """A client; use it as a context manager. `allow_private`: addresses of this network are taken too."""

    def __init__(
        self,
        clock: Clock,
        *,
        allow_private: bool = False,
        resolver: Resolver | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._clock = clock
        self._allow_private = allow_private
        self._resolver = resolver or Resolver()
        self._timeout = timeout
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._resolver.close()
        if self._client is not None:
            await self._client.aclose()

    async def send(self, due: Due) -> State:
        """`sent`; `failed` when the receiver says that it is gone; `pending` when it is to be tried again."""
        if not due.webhook_url or not due.webhook_secret:
            return "off"
        import httpx  # noqa: PLC0415  # seven megabytes, where somebody has a webhook

        if self._client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
            self._client = httpx.AsyncClient(
                timeout=self._timeout, limits=limits, follow_redirects=False, trust_env=False
            )
        try:
            async with asyncio.timeout(self._timeout):
                status = await self._post(self._client, httpx.URL(due.webhook_url), due.webhook_secret, due)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            log.warning("webhook failed", alert=str(due.id), error=type(error).__name__)
            return "pending"
        if 200 <= status < 300:  # noqa: PLR2004 - every 2xx
            return "sent"
        log.warning("webhook refused", alert=str(due.id), status=status)
        return "failed" if status == GONE else "pending"

    async def _post(self, client: httpx.AsyncClient, url: httpx.URL, secret: str, due: Due) -> int:
        body = json.dumps(payload(due), separators=(",", ":"))
        now = self._clock.now()
        headers = {
            "host": url.netloc.decode(),
            "content-type": "application/json",
            "user-agent": "signgate-webhooks",
            "webhook-id": str(due.id),
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(str(due.id), now, body),
        }
        address = await self._address(url)
        request = client.build_request("POST", url.copy_with(host=address), headers=headers, content=body)
        # The certificate is the name's, not the address's.
        request.extensions["sni_hostname"] = url.host
        answer = await client.send(request, stream=True)
        await answer.aclose()
        return answer.status_code

    async def _address(self, url: httpx.URL) -> str:
        """An address of the host. Raises `NoPublicAddressError` unless all it has are public."""
        if not url.host:
            raise NoPublicAddressError
        port = url.port or (443 if url.scheme == "https" else 80)
        return (await self._resolver.addresses(url.host, port, internal=self._allow_private))[0]


def payload(due: Due) -> dict[str, Any]:
    """The webhook's body."""
    return {
        "type": "quota.alert",
        "timestamp": due.created_at.isoformat(),
        "data": {
            "user_id": str(due.user_id),
            "pool": due.pool,
            "date": due.date.isoformat(),
            "threshold_percent": due.threshold,
            "used": due.used,
            "daily_limit": due.daily_limit,
        },
    }
