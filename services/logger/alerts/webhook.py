"""Alerts as webhooks: signed as Standard Webhooks tells, and sent to public addresses only.

The URL is a stranger's. So its host is resolved here, each address must be a public one, and the request
goes to that very address: a name that leads inside, or comes to after it was looked at, reaches nothing.
Redirects are not followed; of the answer only the status counts.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from standardwebhooks import Webhook

from servicekit import log as logging
from servicekit.clock import Clock
from services.logger.alerts.model import Due, State

if TYPE_CHECKING:
    import httpx

TIMEOUT: Final = 10.0
GONE: Final = 410
log = logging.get("alerts")


class NoPublicAddressError(Exception):
    """The host has no address that a webhook may be sent to."""


class Webhooks:
    """A client; use it as a context manager. `allow_private`: addresses of this network are taken too."""

    def __init__(self, clock: Clock, *, allow_private: bool = False) -> None:
        self._clock = clock
        self._allow_private = allow_private
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def send(self, due: Due) -> State:
        """`sent`; `failed` when the receiver says that it is gone; `pending` when it is to be tried again."""
        if not due.webhook_url or not due.webhook_secret:
            return "off"
        import httpx  # noqa: PLC0415  # seven megabytes, where somebody has a webhook

        if self._client is None:
            self._client = httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=False, trust_env=False)
        try:
            async with asyncio.timeout(TIMEOUT):
                status = await self._post(self._client, httpx.URL(due.webhook_url), due.webhook_secret, due)
        except (httpx.HTTPError, httpx.InvalidURL, NoPublicAddressError, OSError, ValueError) as error:
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
        found: list[Any] = await asyncio.get_running_loop().getaddrinfo(
            url.host, port, type=socket.SOCK_STREAM
        )
        addresses = [str(one[4][0]) for one in found]
        if not addresses or not (self._allow_private or all(map(is_public, addresses))):
            raise NoPublicAddressError
        return addresses[0]


def is_public(text: str) -> bool:
    """Whether a packet to it leaves for the internet: no private, loopback, link-local or reserved one."""
    address = ipaddress.ip_address(text.split("%", maxsplit=1)[0])
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return address.is_global and not address.is_multicast and (mapped is None or mapped.is_global)


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
