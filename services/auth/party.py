"""Where passkeys of this deployment may be used: the relying party of WebAuthn.

A browser uses a passkey only on pages of a domain name (an IP address is none) that came by https, or from
`localhost`. So a site at a loopback address has the relying party `localhost`, and a site at any other
address or without TLS has none: passkeys can't be set up there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from services.auth.errors import ValidationFailed, WebAuthnDisabled

APP: Final = "android:apk-key-hash:"
"""What the origin of an Android app begins with."""
_domain: Final = re.compile(r"localhost|(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,62}")
_app: Final = re.compile(APP + r"[A-Za-z0-9_-]{43}")
_ports: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """`id`: a domain name, "" where passkeys can't be used. `origins`: of the pages that may use them."""

    id: str = ""
    origins: tuple[str, ...] = ()

    def check(self, rp_id: str, origins: Sequence[str]) -> None:
        """Compare what a client wants with the deployment's own.

        Raises `WebAuthnDisabled`, `ValidationFailed`.
        """
        if not self.id:
            raise WebAuthnDisabled
        if rp_id not in ("", self.id):
            raise ValidationFailed("rp_id", f"passkeys of this deployment are for {self.id}")
        if not set(origins) <= set(self.origins):
            raise ValidationFailed(
                "origins", f"passkeys of this deployment are for {', '.join(self.origins)}"
            )


def relying_party(site_url: str, rp_id: str = "", origins: Sequence[str] = ()) -> RelyingParty:
    """From the settings. Raises `ValueError`: the id is no domain name, or an origin is outside it."""
    site = urlsplit(site_url)
    host = "localhost" if _loopback(site.hostname or "") else (site.hostname or "")
    own = _origin(site, host)
    wanted = rp_id or (host if own and _domain.fullmatch(host) else "")
    if not wanted:
        if origins:
            raise ValueError("webauthn_origins needs webauthn_rp_id: site_url has no domain name with https")
        return RelyingParty()
    if not _domain.fullmatch(wanted):
        raise ValueError("webauthn_rp_id must be a domain name in lower case")
    found = [own] if own and _within(host, wanted) else []
    for text in origins:
        listed = _listed(text, wanted)
        if listed not in found:
            found.append(listed)
    if not found:
        raise ValueError("webauthn_origins must list an origin of webauthn_rp_id: site_url is not one")
    return RelyingParty(wanted, tuple(found))


def _listed(text: str, rp_id: str) -> str:
    if _app.fullmatch(text):
        return text
    parts = urlsplit(text)
    found = _origin(parts, parts.hostname or "")
    bare = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc)
    if not found or not bare or not _within(parts.hostname or "", rp_id):
        raise ValueError(f"webauthn_origins must list https origins of {rp_id} (http for localhost only)")
    return found


def _origin(parts: SplitResult, host: str) -> str:
    """As browsers write it, "" for what is no secure context."""
    scheme = parts.scheme
    if not host.isascii() or not (scheme == "https" or (scheme == "http" and _within(host, "localhost"))):
        return ""
    port = parts.port  # raises ValueError
    return f"{scheme}://{host}" + (f":{port}" if port not in (None, _ports[scheme]) else "")


def _within(host: str, domain: str) -> bool:
    return host == domain or host.endswith(f".{domain}")


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
