"""Which service makes an internal call, and whether the method's policy allows it.

The only place that enforces ACCESS_INTERNAL. A credential (see `servicekit.identity`) is valid when

* it is signed, by the algorithm of that key, with a key that `SIGNGATE_SERVICE_KEYS` has for its `iss`;
* its `aud` is this service, and its type is that of service credentials;
* it has begun and not expired, within `LEEWAY` seconds of this clock, and lasts no longer than `LONGEST`;

and the policy's `callers` name its `iss`. Otherwise the call ends with SERVICE_CREDENTIAL_MISSING,
SERVICE_CREDENTIAL_INVALID or SERVICE_NOT_ALLOWED, before its message is read. The log says why a credential
is not valid; the caller is not told. Refusals are counted by reason.

The file has only public keys, one JWK Set for each service: `{"signer": {"keys": [...]}, ...}`. A change
takes effect within a second, also for credentials that were valid before. A key may have an `exp`, which
`servicekit.keyset` sets on a rotated-out key; the key is valid until then, or until it is removed.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import jwt

from servicekit.clock import Clock, SystemClock
from servicekit.errors import PermissionDenied, SigngateError, Unauthenticated
from servicekit.identity import ALGORITHM, HEADER, TYPE
from servicekit.telemetry import CREDENTIALS
from servicekit.watched import WatchedFile
from signgate.common.v1 import policy_pb2 as pb

LEEWAY: Final = 30
"""Seconds that two services' clocks may differ."""
LONGEST: Final = 3600
"""Seconds that a credential may live, whatever its `exp` says."""
_longest_text: Final = 1024
_remembered: Final = 256
_prefix: Final = "SERVICE_"

Metadata = Iterable[tuple[str, str | bytes]]


class CredentialMissing(Unauthenticated):
    """An internal method was called without a service credential."""

    reason = "SERVICE_CREDENTIAL_MISSING"
    message = "Only Signgate's services may call this method, with a service credential."


class CredentialInvalid(Unauthenticated):
    """The service credential is not valid for this service."""

    reason = "SERVICE_CREDENTIAL_INVALID"
    message = "The service credential is not valid."


class ServiceNotAllowed(PermissionDenied):
    """An authenticated service that the method's policy does not list."""

    reason = "SERVICE_NOT_ALLOWED"
    message = "This service may not call this method."


class Refused(ValueError):
    """Why, for the log: nothing that the caller sent."""


class PublicKey(NamedTuple):
    """A service's public key. `exp`: epoch seconds from which it no longer counts."""

    service: str
    key: Any
    exp: float


def service_keys(content: bytes) -> Mapping[str, PublicKey]:
    """The public keys in a file's contents, by key id. Raises `ValueError`, quoting nothing of it."""
    try:
        document = json.loads(content)
        found = [
            (str(jwk["kid"]), PublicKey(service, _public(jwk), float(jwk.get("exp", math.inf))))
            for service, jwks in document.items()
            for jwk in jwks["keys"]
        ]
    except Exception:  # noqa: BLE001  # many kinds; and the parsers' own texts may quote the file
        raise ValueError(f"not a JWK Set of public {ALGORITHM} keys for each service") from None
    keys = dict(found)
    if len(keys) != len(found):
        raise ValueError("two keys have the same id")
    return keys


def _public(jwk: Mapping[str, Any]) -> Any:
    if "d" in jwk or jwk.get("alg") != ALGORITHM:
        raise ValueError
    return jwt.PyJWK(dict(jwk)).key


def callers_of(policy: pb.Policy) -> frozenset[str]:
    """The names of the services that a policy lets call its method."""
    return frozenset(
        pb.Service.Name(one).removeprefix(_prefix).lower()
        for one in policy.callers
        if one != pb.SERVICE_UNSPECIFIED
    )


class Callers:
    """Authenticates the callers of the service `name`. Raises `FileError` when the key file is not usable.

    Valid credentials are cached until they expire or the file changes, at most `_remembered` of them:
    verifying a signature costs a tenth of a millisecond, a cache lookup about a microsecond.
    """

    def __init__(self, name: str, keys: Path, clock: Clock | None = None) -> None:
        self._name = name
        self._clock = clock or SystemClock()
        self._file = WatchedFile(service_keys, keys, clock=self._clock)
        self._keys = self._file.current()
        self._good: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def require(self, metadata: Metadata, allowed: frozenset[str]) -> str:
        """The calling service's name. Raises what the module lists. Does no I/O but a look at the file."""
        try:
            caller = self._identify(metadata)
            if caller not in allowed:
                raise ServiceNotAllowed from Refused(f"called by {caller}")
        except SigngateError as error:
            CREDENTIALS.labels("service", error.reason).inc()
            raise
        return caller

    def _identify(self, metadata: Metadata) -> str:
        given = None
        for name, value in metadata:
            if name == HEADER:
                if given is not None:
                    raise CredentialInvalid
                given = value
        if not given:
            raise CredentialMissing
        keys = self._file.current()
        if keys is not self._keys:
            self._keys = keys
            self._good.clear()
        if not isinstance(given, str):
            raise CredentialInvalid
        known = self._good.get(given)
        if known is not None:
            if self._clock.time() < known[0]:
                return known[1]
            del self._good[given]
        try:
            until, caller = self._verify(given)
        except jwt.InvalidTokenError as error:
            # By its class alone: the library's texts may quote the token.
            raise CredentialInvalid from Refused(type(error).__name__)
        except ValueError as error:
            raise CredentialInvalid from error
        self._good[given] = (until, caller)
        if len(self._good) > _remembered:
            self._good.popitem(last=False)
        return caller

    def _verify(self, given: str) -> tuple[float, str]:
        """Until when it counts, and whose it is. Raises `jwt.InvalidTokenError` or `ValueError`."""
        if len(given) > _longest_text or not given.isascii():
            raise ValueError("not a credential")
        header = jwt.get_unverified_header(given)
        public = self._keys.get(str(header.get("kid")))
        if public is None or header.get("typ") != TYPE:
            raise ValueError("no such key, or another kind of token")
        claims = jwt.decode(
            given,
            public.key,
            algorithms=[ALGORITHM],
            issuer=public.service,
            audience=self._name,
            # Times are checked below, against our clock.
            options={
                "require": ["exp", "iat", "iss", "aud"],
                "strict_aud": True,
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
        issued, ends = claims["iat"], claims["exp"]
        if type(issued) is not int or type(ends) is not int:
            raise ValueError("times are whole seconds")
        now = self._clock.time()
        until = min(ends + LEEWAY, public.exp)
        if not (issued - LEEWAY <= now < until) or not 0 < ends - issued <= LONGEST:
            raise ValueError("expired or not yet valid")
        return until, public.service
