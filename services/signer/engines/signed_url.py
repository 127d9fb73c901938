"""The form of a native signed URL: how it is put together, taken apart, and what is signed of it.

    <canonical URL> ? or & [msToken=signgate-<id>&]
        sg_v=1&sg_id=<id>&sg_exp=<expiry>&sg_kid=<key>&sg_sig=<signature>

    sg_v    the version of this form
    sg_id   the request's UUID: finds the usage row, and makes any two signatures differ
    sg_exp  the first second, since 1970 in UTC, at which the signature no longer holds
    sg_kid  the signing key's id
    sg_sig  the signature over `message`, in base64url without padding

`msToken` is there for the sign-server contract's clients, when asked for; its value is ours and it is
signed like the rest. Every signed URL has exactly one spelling: `dismantle` accepts what `assemble` can
have made and nothing else. docs/signed-urls.md is the manual, with test vectors. No keys here.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Final

from services.signer.domain import Algorithm
from services.signer.room_url import MAX_LENGTH as MAX_CANONICAL_LENGTH

VERSION: Final = "1"
MAX_LENGTH: Final = MAX_CANONICAL_LENGTH + 512
"""Characters of a signed URL, at most."""
KEY_ID: Final = re.compile(r"[A-Za-z0-9_\-]{1,64}")
"""What a key id may look like."""

_DOMAIN: Final = b"signgate/signed-url/v1\n"
_PREFIX: Final = {algorithm: _DOMAIN + algorithm.value.encode() + b"\n" for algorithm in Algorithm}
_MS_TOKEN_PREFIX: Final = "signgate-"  # noqa: S105  # a parameter's value, no secret
_SIGNED_URL: Final = re.compile(
    r"(?P<unsigned>(?P<base>https://[!-~]+)"
    r"[?&]sg_v=1&sg_id=(?P<id>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"&sg_exp=(?P<exp>[1-9][0-9]{0,10})&sg_kid=(?P<kid>[A-Za-z0-9_\-]{1,64}))"
    r"&sg_sig=(?P<sig>[A-Za-z0-9_\-]{43}|[A-Za-z0-9_\-]{86})"
)


@dataclass(frozen=True, slots=True)
class Dismantled:
    """A URL of the right form, and nothing in it proven. `unsigned` is all before `&sg_sig=`."""

    base: str
    unsigned: str
    request_id: str
    expires: int
    key_id: str
    signature: bytes


def ms_token(request_id: str) -> str:
    """The value of `msToken` in the URLs that have one."""
    return _MS_TOKEN_PREFIX + request_id


def unsigned_url(url: str, request_id: str, expires: int, key_id: str, *, with_ms_token: bool) -> str:
    """The canonical `url` with all the parameters but the signature."""
    joint = "&" if "?" in url else "?"
    extra = f"msToken={ms_token(request_id)}&" if with_ms_token else ""
    return f"{url}{joint}{extra}sg_v=1&sg_id={request_id}&sg_exp={expires}&sg_kid={key_id}"


def message(algorithm: Algorithm, unsigned: str) -> bytes:
    """The bytes that are signed.

    They begin with what they are for, the version and the algorithm, each on a line of its own, so
    that no signature under the same key over anything else can be taken for one of these. A URL
    holds no line break, so the bytes have one reading.
    """
    return _PREFIX[algorithm] + unsigned.encode("ascii")


def encode_signature(signature: bytes) -> str:
    """base64url without padding (RFC 4648, section 5)."""
    return urlsafe_b64encode(signature).rstrip(b"=").decode("ascii")


def assemble(unsigned: str, signature: str) -> str:
    """The signed URL."""
    return f"{unsigned}&sg_sig={signature}"


def dismantle(text: str) -> Dismantled | None:
    """The parts of a signed URL, or None when it is not spelt as `assemble` spells it.

    `base` is what stands before our parameters: the caller checks that it is canonical.
    """
    match = _SIGNED_URL.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        return None
    unsigned, base, request_id, expires, key_id, encoded = match.group(
        "unsigned", "base", "id", "exp", "kid", "sig"
    )
    signature = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    if encode_signature(signature) != encoded:  # stray bits in the last letter: a second spelling
        return None
    marker = f"msToken={ms_token(request_id)}"
    with_ms_token = base.endswith((f"?{marker}", f"&{marker}"))
    if with_ms_token:
        base = base[: -len(marker) - 1]
    if unsigned_url(base, request_id, int(expires), key_id, with_ms_token=with_ms_token) != unsigned:
        return None
    return Dismantled(base, unsigned, request_id, int(expires), key_id, signature)
