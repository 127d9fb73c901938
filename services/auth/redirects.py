"""Where a mailed link may lead: the site's own pages, and what the operator lists.

Addresses are parsed as browsers do it (the WHATWG URL standard, by pydantic's parser) and compared part by
part, never as text: `http://localhost:80@evil.example/` starts with `http://localhost:` and leads elsewhere.

| pattern | allows |
|---|---|
| `https://app.example/callback` | this address, with the same query or none |
| `https://app.example/app/*` | every path that begins with `/app/`, with any query |
| `http://localhost:*` | any port and any path |
| `http://localhost:*/callback` | any port |
| `https://*.preview.example/*` | exactly one more label |
| `com.example.app://login` | the link of an app |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError
from pydantic_core import Url

LONGEST: Final = 2048
"""Characters of an address."""
_port: Final = re.compile(r"^([a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[^/?#@:]+)):\*(?=$|/)", re.IGNORECASE)
_any_label: Final = re.compile(r"^([a-z][a-z0-9+.-]*://)\*\.(?=[^/?#@:*.])", re.IGNORECASE)
_scripts: Final = frozenset({"javascript", "data", "vbscript", "file", "blob", "about", "filesystem"})
"""Schemes of addresses that are not places, or that are places on the reader's own machine."""
_hidden: Final = re.compile(r"%(?:2e|2f|5c)|/\.\.?;", re.IGNORECASE)
"""`.`, `/` and `\\`, escaped, and `..;`: a server may read another path than the one that was compared."""
_schemes_with_a_host: Final = frozenset({"http", "https"})
_relative: Final = re.compile(r"https?:(?!//)", re.IGNORECASE)
"""Without `//` browsers take it for a path below the page that leads there, if that has the same scheme."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of the operator's list. `None` for a port or a query means any."""

    scheme: str
    host: str
    any_label: bool
    port: int | None
    any_port: bool
    path: str
    any_path: bool
    query: str | None

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises `ValueError`, which names the pattern and says what is wrong."""
        plain, any_port = _port.subn(r"\1", text)
        plain, any_label = _any_label.subn(r"\1", plain)
        any_path = plain.endswith("/*") or bool(any_port and plain.count("/") == len("//"))
        if any_path:
            plain = plain.removesuffix("*")
        if "*" in plain:
            raise ValueError(
                f"{text!r}: * may stand for the end of a path (https://app.example/*), for the port"
                " (http://localhost:*) or for the first label (https://*.app.example/*)"
            )
        url = _parsed(plain)
        if url is None or _relative.match(plain) or (url.scheme in _schemes_with_a_host and not url.host):
            raise ValueError(f"{text!r} is not a URL such as https://app.example/callback")
        if url.scheme in _scripts:
            raise ValueError(f"{text!r}: a link may not lead to {url.scheme}:")
        if url.username is not None or url.password is not None or url.fragment is not None:
            raise ValueError(f"{text!r} must have no user name, password or fragment")
        if any_path and url.query is not None:
            raise ValueError(f"{text!r}: a path that ends with * allows any query; remove the query")
        if any_label and not _is_domain(url.host or ""):
            raise ValueError(f"{text!r} would allow every domain below a top-level domain, or is no domain")
        if not url.host and not url.path:
            raise ValueError(f"{text!r} must name a place in the app, such as com.example.app://login")
        return cls(
            url.scheme,
            url.host or "",
            bool(any_label),
            url.port,
            bool(any_port),
            url.path or "",
            any_path,
            url.query,
        )

    def allows(self, url: Url) -> bool:
        """Whether this address matches. One with a user name or a password never does."""
        if url.username is not None or url.password is not None or url.scheme != self.scheme:
            return False
        if not self._same_host(url.host or "") or not (self.any_port or url.port == self.port):
            return False
        path = url.path or ""
        if not self.any_path:
            return path == self.path and url.fragment is None and url.query in (None, self.query)
        return path.startswith(self.path) and not _hidden.search(path)

    def _same_host(self, host: str) -> bool:
        if not self.any_label:
            return host == self.host
        label, _, rest = host.partition(".")
        return bool(label) and rest == self.host


class Redirects:
    """Chooses where links lead. Raises `ValueError` for a bad pattern."""

    def __init__(self, site_url: str, patterns: Sequence[str] = ()) -> None:
        """`site_url` has no slash at its end."""
        self.site_url = site_url
        self._exactly = Pattern.parse(site_url)
        self._patterns = (Pattern.parse(f"{site_url}/*"), *map(Pattern.parse, patterns))

    def choose(self, wanted: str) -> str:
        """The address that was asked for if it is allowed, otherwise the site itself."""
        return wanted if self._allowed(wanted) else self.site_url

    def _allowed(self, wanted: str) -> bool:
        if not 0 < len(wanted) <= LONGEST:
            return False
        # Nothing that a header, a table or an old parser could read in two ways.
        if not (wanted.isascii() and wanted.isprintable()) or set(wanted) & set('\\"<> '):
            return False
        url = _parsed(wanted)
        if url is None or _relative.match(wanted):
            return False
        return self._exactly.allows(url) or any(pattern.allows(url) for pattern in self._patterns)


def _is_domain(host: str) -> bool:
    """Whether it is one below a top-level domain, and no IP address."""
    name, _, top = host.removesuffix(".").rpartition(".")
    return bool(name) and not top.isdigit()


def _parsed(text: str) -> Url | None:
    try:
        return Url(text)
    except (ValidationError, ValueError):
        return None
