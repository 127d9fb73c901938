"""Signing keys in a file: a JWK Set (RFC 7517) with a life for each key.

    python -m servicekit.keyset new --alg ES256 --out jwt-keys.json
    python -m servicekit.keyset rotate --alg ES256 --out jwt-keys.json
    python -m servicekit.keyset show --out jwt-keys.json

A key's life, in epoch seconds: made (`iat`), published at once, signing from `nbf` on (so that
whoever caches the published set has seen it by then), and published until `exp`, when it is retired
(so that what it signed last can be verified to its end). Of several keys of one algorithm the one
whose `nbf` came last signs. One file may hold several algorithms: ES256 and EdDSA (published), and
HS256 (shared secrets, never published).

A file is written whole or not at all, readable by its owner alone. Keys do not show in `repr`.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, get_args

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm

from servicekit.clock import Clock, SystemClock

Algorithm = Literal["ES256", "EdDSA", "HS256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = get_args(Algorithm)

LEAD: Final = 600
"""Seconds from publishing a rotated-in key to signing with it: twice the time a set is cached."""
OVERLAP: Final = 86_400
"""Seconds for which a rotated-out key stays published after it stopped signing."""

Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | bytes


class KeySetError(Exception):
    """A key file is missing or wrong, or has no key for what is asked. Tells no key material."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key and its life; times are epoch seconds. `key` is a private key object or a secret."""

    kid: str
    alg: Algorithm
    iat: int
    nbf: int
    exp: int | None
    key: Key = field(repr=False)

    def signs(self, now: float) -> bool:
        """True when it may make signatures."""
        return self.nbf <= now and not self.retired(now)

    def retired(self, now: float) -> bool:
        """True when its signatures no longer count."""
        return self.exp is not None and self.exp <= now

    def public_jwk(self) -> dict[str, Any]:
        """The public half, as it is published. Raises `KeySetError` for a shared secret."""
        if isinstance(self.key, bytes):
            raise KeySetError("a shared secret has no public half")
        jwk = _to_jwk(self.key.public_key())
        return {**jwk, "kid": self.kid, "alg": self.alg, "use": "sig"}


@dataclass(frozen=True, slots=True)
class KeySet:
    """The keys of one file at one moment."""

    keys: tuple[SigningKey, ...]

    def active(self, alg: Algorithm, now: float) -> SigningKey:
        """The key that signs now. Raises `KeySetError` when there is none."""
        able = [key for key in self.keys if key.alg == alg and key.signs(now)]
        if not able:
            raise KeySetError(f"no {alg} key signs now")
        # Of two that began in the same second, the one added last: `max` takes the first it meets.
        return max(reversed(able), key=lambda key: (key.nbf, key.iat))

    def find(self, kid: str, now: float) -> SigningKey | None:
        """The key of this id unless it is retired: for verifying."""
        return next((key for key in self.keys if key.kid == kid and not key.retired(now)), None)

    def public_jwks(self, now: float) -> dict[str, Any]:
        """The JWK Set to publish: keys that sign, will sign, or did and still count."""
        return {
            "keys": [
                key.public_jwk()
                for key in self.keys
                if not key.retired(now) and not isinstance(key.key, bytes)
            ]
        }

    def rotated(self, alg: Algorithm, now: float, *, lead: int = LEAD, overlap: int = OVERLAP) -> KeySet:
        """With a new key of this algorithm that signs from `lead` seconds on.

        Its elders stay published for `overlap` seconds more; keys retired by now are dropped. The
        first key of an algorithm signs at once.
        """
        first = not any(key.alg == alg and key.signs(now) for key in self.keys)
        fresh = generate(alg, int(now), nbf=int(now) + (0 if first else lead))
        kept = [
            replace(key, exp=fresh.nbf + overlap) if key.alg == alg and key.exp is None else key
            for key in self.keys
            if not key.retired(now)
        ]
        return KeySet((*kept, fresh))


def generate(alg: Algorithm, now: int, *, nbf: int | None = None) -> SigningKey:
    """A new key with a new id, from the operating system's random source."""
    key: Key
    if alg == "ES256":
        key = ec.generate_private_key(ec.SECP256R1())
    elif alg == "EdDSA":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        key = secrets.token_bytes(32)
    kid = f"{alg.lower()}-{secrets.token_hex(6)}"
    return SigningKey(kid=kid, alg=alg, iat=now, nbf=now if nbf is None else nbf, exp=None, key=key)


def load(path: Path) -> KeySet:
    """The keys of a file. Raises `KeySetError`, which says what is wrong but shows no key."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        keys = tuple(_parse(jwk) for jwk in document["keys"])
    except OSError as error:
        raise KeySetError(f"{path}: {error.strerror}") from None
    except Exception:  # noqa: BLE001  # many kinds; and the parsers' own texts may quote the file
        raise KeySetError(f"{path}: not a JWK Set of {', '.join(ALGORITHMS)} private keys") from None
    if len({key.kid for key in keys}) != len(keys):
        raise KeySetError(f"{path}: two keys have one id")
    return KeySet(keys)


def save(path: Path, keys: Iterable[SigningKey]) -> None:
    """Write a file of mode 0600, whole or not at all. Raises `OSError`."""
    document = {"keys": [_dump(key) for key in keys]}
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class KeySetFile:
    """A key file that may be rotated under a running service: `current()` sees it within a second.

    A file that has become unreadable or wrong leaves the last good keys in use. The first load must
    succeed: raises `KeySetError`.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._seen = self._stamp()
        self._looked = self._clock.monotonic()
        self._keys = load(path)

    def current(self) -> KeySet:
        """The keys of now. Looks at the file at most once a second."""
        now = self._clock.monotonic()
        if now - self._looked >= 1.0:
            self._looked = now
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                self._reload()
        return self._keys

    def active(self, alg: Algorithm) -> SigningKey:
        """See `KeySet.active`."""
        return self.current().active(alg, self._clock.time())

    def find(self, kid: str) -> SigningKey | None:
        """See `KeySet.find`."""
        return self.current().find(kid, self._clock.time())

    def public_jwks(self) -> dict[str, Any]:
        """See `KeySet.public_jwks`."""
        return self.current().public_jwks(self._clock.time())

    def _reload(self) -> None:
        from servicekit import log  # noqa: PLC0415  # the command line below needs no logging

        try:
            self._keys = load(self._path)
        except KeySetError as error:
            log.get("keyset").error("the key file is not usable; old keys go on", cause=str(error))
        else:
            log.get("keyset").info("keys reloaded", kids=[key.kid for key in self._keys.keys])

    def _stamp(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


def _to_jwk(key: Any) -> dict[str, Any]:
    if isinstance(key, bytes):
        return HMACAlgorithm.to_jwk(key, as_dict=True)
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        return ECAlgorithm.to_jwk(key, as_dict=True)
    return OKPAlgorithm.to_jwk(key, as_dict=True)


def _dump(key: SigningKey) -> dict[str, Any]:
    times = {"iat": key.iat, "nbf": key.nbf, **({} if key.exp is None else {"exp": key.exp})}
    return {**_to_jwk(key.key), "kid": key.kid, "alg": key.alg, "use": "sig", **times}


def _parse(jwk: dict[str, Any]) -> SigningKey:
    alg: Any = jwk["alg"]
    key: Any = None
    if alg == "ES256":
        key = ECAlgorithm(ECAlgorithm.SHA256).from_jwk(jwk)
        right = isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1"
    elif alg == "EdDSA":
        key = OKPAlgorithm().from_jwk(jwk)
        right = isinstance(key, ed25519.Ed25519PrivateKey)
    elif alg == "HS256":
        key = HMACAlgorithm(HMACAlgorithm.SHA256).from_jwk(jwk)
        right = len(key) >= 32  # noqa: PLR2004  # RFC 7518, 3.2: as long as the hash
    else:
        right = False
    if not right:
        raise ValueError(alg)
    exp = jwk.get("exp")
    iat = int(jwk["iat"])
    return SigningKey(
        kid=str(jwk["kid"]),
        alg=alg,
        iat=iat,
        nbf=int(jwk.get("nbf", iat)),
        exp=None if exp is None else int(exp),
        key=key,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; see the module. Prints key ids and lives, never keys."""
    parser = argparse.ArgumentParser(
        prog="python -m servicekit.keyset", description="Signing keys in a file."
    )
    parser.add_argument("action", choices=("new", "rotate", "show"))
    parser.add_argument("--alg", choices=ALGORITHMS, action="append", help="may be given more than once")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE")
    parser.add_argument("--lead", type=int, default=LEAD, help="seconds until a rotated-in key signs")
    parser.add_argument("--overlap", type=int, default=OVERLAP, help="seconds an old key stays published")
    given = parser.parse_args(arguments)
    now = SystemClock().time()
    try:
        if given.action == "new" and given.out.exists():
            raise KeySetError(f"{given.out} exists; use rotate")
        if given.action != "show" and not given.alg:
            raise KeySetError("name an algorithm with --alg")
        keys = KeySet(()) if given.action == "new" else load(given.out)
        if given.action != "show":
            for alg in given.alg:
                keys = keys.rotated(alg, now, lead=given.lead, overlap=given.overlap)
            save(given.out, keys.keys)
    except (KeySetError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for key in keys.keys:
        retire = "never" if key.exp is None else str(key.exp)
        sys.stdout.write(f"{key.kid} {key.alg} made {key.iat} signs-from {key.nbf} retires {retire}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
