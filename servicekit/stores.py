"""Which stores would be reached in plain text, judged only by their addresses.

A store on this host (a loopback address, `localhost`, a Unix socket) may be reached in plain text. Any other
is refused at start, unless `SIGNGATE_PLAINTEXT_STORES` lists its host, because passwords, sessions and users'
data go there. PostgreSQL uses TLS if `sslmode` is `require`, `verify-ca` or `verify-full`; without `sslmode`
the driver would fall back to plain text. Redis uses TLS with the schemes `rediss` and `rediss+cluster`.

Pure standard library. No error quotes an address, because addresses contain passwords.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

ENCRYPTED: Final = frozenset({"require", "verify-ca", "verify-full"})
"""The values of `sslmode` that never fall back to plain text."""


def postgres_in_clear(dsn: str, environment: Mapping[str, str]) -> list[str]:
    """The hosts that a connection string reaches in plain text, this one left out. Raises `ValueError`.

    `environment`: the process environment; the drivers use its PGSSLMODE and PGHOST as defaults.
    """
    url = _parsed(dsn)
    query = parse_qs(url.query)
    mode = query.get("sslmode", [environment.get("PGSSLMODE", "")])[-1]
    if mode in ENCRYPTED:
        return []
    # The drivers differ in whether the part before the path or the query wins: so all named hosts count.
    hosts = [*_hosts(url), *(host for name in ("host", "hostaddr") for host in _listed(query.get(name)))]
    hosts += _listed(query.get("service"))  # a file that this does not read names the host
    if not hosts:
        hosts = _listed([environment.get("PGHOST", "")])
    return [host for host in hosts if not _here(host)]


def redis_in_clear(url: str) -> list[str]:
    """The hosts that a Redis URL reaches in plain text, this one left out. Raises `ValueError`."""
    parsed = _parsed(url)
    if parsed.scheme in ("rediss", "rediss+cluster", "unix"):
        return []
    return [host for host in _hosts(parsed) if not _here(host)]


def refuse(setting: str, hosts: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise `ValueError` unless every one of these hosts is among those that are allowed."""
    named = {_same(host) for host in allowed}
    refused = sorted({_same(host) for host in hosts} - named)
    if refused:
        raise ValueError(
            f"{setting} reaches {', '.join(refused)} in plain text. Use TLS (sslmode=verify-full, rediss://),"
            " or name the host in SIGNGATE_PLAINTEXT_STORES"
        )


def with_ca(url: str, ca: Path | None) -> str:
    """The Redis URL, with `ca` as the server's authority; a URL without TLS is returned unchanged."""
    if ca is None or not url.startswith("rediss"):
        return url
    mark = "&" if "?" in url else "?"
    return f"{url}{mark}ssl_ca_certs={quote(str(ca), safe='')}"


def _parsed(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:
        raise ValueError("a store's address is not a URL") from None


def _hosts(url: SplitResult) -> list[str]:
    """The hosts before the path, of which a connection string may have several; without ports."""
    found = []
    for part in _listed([url.netloc.rpartition("@")[2]]):
        text = unquote(part)
        if text.startswith("/"):
            found.append(text)
        elif text.startswith("["):
            found.append(text[1:].partition("]")[0])
        else:
            found.append(text.partition(":")[0])
    return [host for host in found if host]


def _listed(texts: Iterable[str] | None) -> list[str]:
    return [part.strip() for text in texts or () for part in text.split(",") if part.strip()]


def _here(host: str) -> bool:
    if host.startswith(("/", "@")):  # a Unix socket
        return True
    if _same(host) == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _same(host: str) -> str:
    return host.lower().rstrip(".")
