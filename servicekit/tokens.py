"""Access tokens verified in process, against the published keys of the issuers that are trusted.

A token holds when its signature is good under a key that its issuer publishes for that algorithm,
its issuer and audience are the ones configured, and it is neither expired nor not yet valid (within
`leeway`). Only asymmetric algorithms are taken, so nobody can sign with a public key as if it were
a shared secret, and `none` is no algorithm at all (RFC 8725, sections 3.1 and 3.2).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final, Protocol, cast
from uuid import UUID

import jwt

from servicekit import log
from servicekit.clock import Clock, SystemClock
from servicekit.errors import Unauthenticated, Unavailable
from servicekit.outbound import fetch
from servicekit.principal import ALL_SCOPES, Principal, Role
from servicekit.tls import client_context
from servicekit.watched import FileError

ALGORITHMS: Final = ("ES256", "EdDSA", "RS256")
MAX_SET: Final = 256 * 1024
"""Bytes of a published key set."""
MAX_KEYS: Final = 100
_longest: Final = 2**53
NOBODY: Final = UUID(int=0)
"""The user of a service-role token that has no `sub`. No such user exists."""

_log = log.get("tokens")


ROLES: Final = frozenset({"authenticated", "service_role"})


class TokenInvalid(Unauthenticated):
    """Not a token that any trusted issuer made for us."""

    reason = "TOKEN_INVALID"
    message = "The access token is not valid."


class TokenExpired(Unauthenticated):
    """A token that held once."""

    reason = "TOKEN_EXPIRED"
    message = "The access token has expired."


class TokenAudience(Unauthenticated):
    """A token that was made for somebody else."""

    reason = "TOKEN_AUDIENCE"
    message = "The access token was not issued for this service."


@dataclass(frozen=True, slots=True)
class Issuer:
    """A trusted issuer, where it publishes its keys, and which roles it may grant.

    `internal`: the keys are in the deployment's network; otherwise only https and public addresses are valid.
    `ca`: a file with the authority for an internal address; without it the system's authorities are used.
    `own`: this deployment's auth service. See `principal_of` for what only its tokens say.
    """

    name: str
    jwks_url: str
    audience: str = "authenticated"
    algorithms: tuple[str, ...] = field(default=ALGORITHMS)
    roles: frozenset[str] = ROLES
    internal: bool = True
    ca: Path | None = None
    own: bool = True

    def __post_init__(self) -> None:
        if not set(self.algorithms) <= set(ALGORITHMS):
            raise ValueError(f"only {', '.join(ALGORITHMS)} are taken")


class IssuerKeys(Protocol):
    """One issuer's published keys."""

    async def get(self, kid: str) -> jwt.PyJWK:
        """The key of this id. Raises `TokenInvalid` (nobody publishes it) or `Unavailable`."""
        ...


class KeyCache:
    """One issuer's published keys, by key id, at most `max_age` seconds old.

    An unknown key id may mean a rotation, so it is asked for again; but at most once in
    `min_interval` seconds, so that made-up ids can't drive requests to the issuer. While the issuer
    is down known keys go on for `max_stale` seconds. One request at a time, in a thread, of at most `timeout`
    seconds and `MAX_SET` bytes. Without `internal` it goes to public addresses by https, and nowhere else.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        internal: bool = True,
        max_age: float = 300.0,
        max_stale: float = 3600.0,
        min_interval: float = 5.0,
        timeout: float = 3.0,
        ca: Path | None = None,
    ) -> None:
        self._url, self._internal, self._timeout, self._ca = url, internal, timeout, ca
        self._clock = clock
        self._max_age, self._max_stale, self._min_interval = max_age, max_stale, min_interval
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched = self._tried = float("-inf")
        self._lock = asyncio.Lock()

    async def get(self, kid: str) -> jwt.PyJWK:
        """The key of this id. Raises `TokenInvalid` (nobody publishes it) or `Unavailable`."""
        now = self._clock.monotonic()
        known = self._keys.get(kid)
        if known is None or now - self._fetched > self._max_age:
            await self._refresh(now)
            known = self._keys.get(kid)
        if known is not None:
            return known
        if not self._keys:
            raise Unavailable("The token issuer's keys can't be read.", reason="JWKS_UNAVAILABLE")
        raise TokenInvalid

    async def _refresh(self, asked_at: float) -> None:
        async with self._lock:
            now = self._clock.monotonic()
            # Somebody else's fetch, while this one waited for the lock, serves as well.
            if self._tried >= asked_at or now - self._tried < self._min_interval:
                return
            self._tried = now
            try:
                self._keys = await asyncio.to_thread(self._fetch)
                self._fetched = now
            except (jwt.PyJWTError, HTTPException, FileError, OSError, ValueError, RecursionError) as error:
                _log.warning("keys of the issuer can't be read", cause=error)
                if now - self._fetched > self._max_stale:
                    self._keys = {}

    def _fetch(self) -> dict[str, jwt.PyJWK]:
        context = client_context(self._ca) if self._ca is not None else None
        raw = fetch(self._url, internal=self._internal, seconds=self._timeout, most=MAX_SET, context=context)
        found = json.loads(raw)
        if not isinstance(found, dict) or len(found.get("keys", ())) > MAX_KEYS:
            raise ValueError("not a JWK Set, or too many keys")
        keys = jwt.PyJWKSet.from_dict(found).keys
        return {key.key_id: key for key in keys if key.key_id and key.algorithm_name in ALGORITHMS}


class JwtVerifier:
    """Verifies access tokens; see the module for what holds.

    A good token's principal is kept until the token expires (at most `cache_size` tokens, by their
    SHA-256, never the token itself), for a signature costs a tenth of a millisecond. Revocation is
    not seen here: `servicekit.authn` asks the deny-set each time.
    """

    def __init__(
        self,
        issuers: Sequence[Issuer],
        *,
        clock: Clock | None = None,
        keys: Mapping[str, IssuerKeys] | None = None,
        leeway: float = 5.0,
        cache_size: int = 4096,
    ) -> None:
        self._clock = clock or SystemClock()
        self._issuers = {issuer.name: issuer for issuer in issuers}
        self._keys = keys or {
            issuer.name: KeyCache(issuer.jwks_url, self._clock, internal=issuer.internal, ca=issuer.ca)
            for issuer in issuers
        }
        self._leeway = leeway
        self._size = cache_size
        self._good: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        """The token's principal. Raises `TokenInvalid`, `TokenExpired`, `TokenAudience`, `Unavailable`.

        Its callers have held it to `servicekit.authn.MAX_CREDENTIAL`.
        """
        if not token.isascii():
            raise TokenInvalid
        digest = hashlib.sha256(token.encode()).digest()
        kept = self._good.get(digest)
        if kept is not None:
            expires, principal = kept
            if self._clock.time() < expires:
                self._good.move_to_end(digest)
                return principal
            del self._good[digest]
            raise TokenExpired
        claims = await self._claims(token)
        issuer = self._issuers[claims["iss"]]
        principal = principal_of(claims, own=issuer.own)
        if principal.role not in issuer.roles:
            raise TokenInvalid
        self._good[digest] = (float(claims["exp"]) + self._leeway, principal)
        if len(self._good) > self._size:
            self._good.popitem(last=False)
        return principal

    async def _claims(self, token: str) -> dict[str, Any]:
        issuer, key = await self._key_for(token)
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm_name],  # the key's own, not the token's word
                issuer=issuer.name,
                audience=issuer.audience,
                # Times are checked below, against our clock.
                options={
                    "require": ["exp", "iat", "iss", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidAudienceError:
            raise TokenAudience from None
        except (jwt.InvalidTokenError, RecursionError):
            raise TokenInvalid from None
        now = self._clock.time()
        if now >= _number(claims, "exp") + self._leeway:
            raise TokenExpired
        if max(_number(claims, "nbf", 0.0), _number(claims, "iat")) > now + self._leeway:
            raise TokenInvalid("The access token is not valid yet.")
        return claims

    async def _key_for(self, token: str) -> tuple[Issuer, jwt.PyJWK]:
        """The issuer a token names and the key it says it is signed with. Neither is proven yet."""
        try:
            unproven = jwt.decode_complete(token, options={"verify_signature": False})
        except (jwt.InvalidTokenError, RecursionError):  # JSON as deep as the token is long
            raise TokenInvalid from None
        header, named = unproven["header"], unproven["payload"].get("iss")
        issuer = self._issuers.get(named) if isinstance(named, str) else None
        kid, algorithm = header.get("kid"), header.get("alg")
        if issuer is None or not isinstance(kid, str) or algorithm not in issuer.algorithms:
            raise TokenInvalid
        key = await self._keys[issuer.name].get(kid)
        if key.algorithm_name != algorithm:
            raise TokenInvalid
        return issuer, key


def principal_of(claims: Mapping[str, Any], *, own: bool = True) -> Principal:
    """The principal of verified claims. Raises `TokenInvalid` when they name none that we know.

    A token of our own that has no `mfa` claim counts as one of an account with a second factor: it was made
    before the claim was, and its refresh has it. `mfa` and `assurance_version` of an outside issuer's token
    are not read: its accounts have no factor here, so its issuer alone decides about second factors. It says
    when the user signed in by `amr` with timestamps, or by OpenID Connect's `auth_time`; otherwise it is
    never fresh.
    """
    role = claims.get("role")
    if not isinstance(role, str) or role not in ROLES:  # a list has no hash
        raise TokenInvalid
    subject, session = claims.get("sub"), claims.get("session_id")
    if role == "authenticated" and (not subject or not session):
        raise TokenInvalid
    aal, factor, version = claims.get("aal", "aal1"), False, 0
    if own:
        factor, version = claims.get("mfa", True), claims.get("assurance_version", 0)
    if not isinstance(aal, str) or not isinstance(factor, bool):
        raise TokenInvalid
    metadata = claims.get("app_metadata")
    tier = metadata.get("tier") if isinstance(metadata, dict) else None
    try:
        return Principal(
            user_id=UUID(subject) if subject else NOBODY,
            role=cast("Role", role),
            scopes=ALL_SCOPES,
            tier=tier if isinstance(tier, str) else "free",
            session_id=UUID(session) if session else None,
            aal=aal,
            has_factor=factor,
            proved_at=_proved_at(claims, own=own),
            assurance_version=_whole(version),
        )
    except (ValueError, AttributeError, TypeError):
        raise TokenInvalid from None


def _proved_at(claims: Mapping[str, Any], *, own: bool) -> int:
    """The newest proof of identity, in epoch seconds; 0 if the claims name none."""
    amr = claims.get("amr", [])
    if not isinstance(amr, list):
        raise TokenInvalid
    entries = [entry for entry in amr if isinstance(entry, dict)]
    if own and len(entries) != len(amr):  # elsewhere it may be a list of names (RFC 8176)
        raise TokenInvalid
    times = [_whole(entry.get("timestamp", 0)) for entry in entries]
    if not own:
        times.append(_whole(claims.get("auth_time", 0)))
    return max(times, default=0)


def _whole(value: object) -> int:
    """A whole number from zero on that a float can hold. Raises `TokenInvalid`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _longest:
        raise TokenInvalid
    return value


def _number(claims: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TokenInvalid
    try:
        found = float(value)
    except OverflowError:
        raise TokenInvalid from None
    if not math.isfinite(found):  # JSON has no such numbers, Python's reader does; NaN would never expire
        raise TokenInvalid
    return found
