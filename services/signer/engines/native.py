"""The native engine: signed URLs of Signgate's own, in the manner of a CDN's. No I/O, no browser.

What it signs proves that this deployment signed this URL for this request, until then. It is no
signature of the platform's pages, and no platform looks at it: docs/signed-urls.md says so plainly.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from servicekit.clock import Clock
from servicekit.errors import SigngateError
from services.signer.domain import (
    Algorithm,
    EngineInfo,
    EngineStatus,
    PublishedKey,
    Signed,
    SignRequest,
    Verdict,
    VerdictReason,
)
from services.signer.engines import signed_url
from services.signer.engines.signing_keys import SigningKey, SigningKeys, jwk_set
from services.signer.errors import (
    EngineFailure,
    EngineUnavailable,
    RoomUrlError,
    SignDeadlineExceeded,
    SignRequestError,
)
from services.signer.room_url import parse

NAME: Final = "native"
VERSION: Final = f"signed-url-v{signed_url.VERSION}"
SHORTEST_TTL: Final = 1.0
"""Seconds. Expiry is in whole seconds, rounded down, so a signature holds up to a second less than asked."""
BREATH: Final = 64
"""Signatures between two turns of the event loop: about 3 ms of Ed25519."""
_CANARY_ROOM: Final = parse("@signgate.canary")
_CANARY_ID: Final = "00000000-0000-7000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class NativePolicy:
    """How long signatures hold, in seconds, and what is used when a request doesn't say.

    `user_agent` is what an answer carries when the request named none.
    """

    default_ttl: float = 300.0
    min_ttl: float = 10.0
    max_ttl: float = 86_400.0
    default_algorithm: Algorithm = Algorithm.ED25519
    user_agent: str = "Mozilla/5.0"

    def __post_init__(self) -> None:
        """Raise ValueError for bounds that contradict each other."""
        if not SHORTEST_TTL <= self.min_ttl <= self.default_ttl <= self.max_ttl < math.inf:
            raise ValueError(
                f"need {SHORTEST_TTL} <= min_ttl <= default_ttl <= max_ttl, all finite, in seconds"
            )


class NativeEngine:
    """Signs with the active key of the algorithm asked for, and verifies with any that still holds.

    Satisfies `Engine`. `keys` may change at any time (rotation); none is kept here.
    """

    name = NAME

    def __init__(self, keys: SigningKeys, clock: Clock, policy: NativePolicy | None = None) -> None:
        self._keys = keys
        self._clock = clock
        self._policy = policy or NativePolicy()
        self._info = EngineInfo(NAME, VERSION, clock.now())
        self._running = False
        self._not_ready = "The engine has not been started."
        self._canary_at: datetime | None = None

    async def start(self) -> None:
        """Raise `EngineUnavailable` when no key can sign with the default algorithm."""
        now = self._clock.now()
        algorithm = self._policy.default_algorithm
        if self._keys.active(algorithm, now) is None:
            raise EngineUnavailable(f"The native engine has no active {algorithm.value} signing key.")
        self._info = replace(self._info, since=now)
        self._running = True
        self._not_ready = "No canary signature has been made yet."

    async def stop(self) -> None:
        """See `Engine.stop`."""
        self._running = False
        self._not_ready = "The engine has been stopped."

    def describe(self) -> EngineStatus:
        """See `Engine.describe`."""
        return EngineStatus(
            self._info, not self._not_ready, self._not_ready, self._canary_at, self._active_algorithms()
        )

    async def canary(self) -> EngineStatus:
        """Sign a fixed URL with the default algorithm and every other that is active, and verify it.

        See `Engine.canary`. Before `start` and after `stop` it does nothing.
        """
        if self._running:
            self._not_ready = self._try_canary()
            self._canary_at = self._clock.now()
        return self.describe()

    async def sign(self, requests: Sequence[SignRequest]) -> list[Signed | SigngateError]:
        """See `Engine.sign`."""
        results: list[Signed | SigngateError] = []
        for start in range(0, len(requests), BREATH):
            if start:
                await asyncio.sleep(0)
            members = requests[start : start + BREATH]
            if self._not_ready:
                results += [EngineUnavailable(retry_after=1.0) for _ in members]
                continue
            moment = _Moment(self._keys, self._clock)
            for request in members:
                try:
                    results.append(self._sign_one(request, moment))
                except SigngateError as refusal:
                    results.append(refusal)
                except Exception as error:  # noqa: BLE001  # one member's failure is that member's alone
                    failure = EngineFailure()
                    failure.__cause__ = error
                    results.append(failure)
        return results

    def verify(self, url: str, now: datetime) -> Verdict:
        """Whether `url` carries a signature of this deployment that holds at `now`.

        Raises nothing, whatever the text. The reasons are looked at in the order of `VerdictReason`,
        so EXPIRED is said only of what was truly signed here.
        """
        parts = signed_url.dismantle(url)
        if parts is None:
            return _invalid(
                VerdictReason.MALFORMED, "That is no signed URL: it is not of the documented form."
            )
        try:
            room = parse(parts.base)
        except RoomUrlError:
            room = None
        if room is None or room.url != parts.base:
            return _invalid(
                VerdictReason.NOT_CANONICAL,
                "The URL before the signature is not in canonical form.",
                parts.key_id,
            )
        key = self._keys.find(parts.key_id, now)
        if key is None:
            return _invalid(VerdictReason.UNKNOWN_KEY, "No key of that id is in use here.", parts.key_id)
        if not key.verify(parts.signature, signed_url.message(key.algorithm, parts.unsigned)):
            return _invalid(
                VerdictReason.BAD_SIGNATURE, "The signature is not this key's for this URL.", parts.key_id
            )
        expired = now.timestamp() >= parts.expires
        return Verdict(
            valid=not expired,
            reason=VerdictReason.EXPIRED if expired else None,
            message="The signature held once and has expired." if expired else "",
            room=room,
            expires_at=datetime.fromtimestamp(parts.expires, UTC),
            key_id=parts.key_id,
            algorithm=key.algorithm,
            request_id=parts.request_id,
        )

    def published_keys(self) -> list[PublishedKey]:
        """The public keys by which anyone verifies, newest first."""
        return self._keys.published(self._clock.now())

    def published_jwks(self) -> dict[str, Any]:
        """The same as a JWK Set (RFC 7517)."""
        return jwk_set(self.published_keys())

    def _sign_one(self, request: SignRequest, moment: _Moment) -> Signed:
        if request.deadline is not None and moment.monotonic >= request.deadline:
            raise SignDeadlineExceeded
        policy = self._policy
        ttl = policy.default_ttl if request.ttl is None else request.ttl
        if not policy.min_ttl <= ttl <= policy.max_ttl:  # NaN fails this as well
            raise SignRequestError(
                f"A signature's lifetime is from {policy.min_ttl:g} to {policy.max_ttl:g} seconds here.",
                reason="TTL_OUT_OF_RANGE",
            )
        algorithm = request.algorithm or policy.default_algorithm
        key = moment.key(algorithm)
        if key is None:
            raise SignRequestError(
                f"No {algorithm.value} key signs here. Ask for another algorithm, or for none.",
                reason="ALGORITHM_NOT_ENABLED",
            )
        expires = int(moment.time + ttl)
        if key.retires is not None and key.retires < expires:  # a signature never outlives its key
            expires = key.retires
        request_id = request.request_id
        unsigned = signed_url.unsigned_url(
            request.room.url, request_id, expires, key.key_id, with_ms_token=request.platform_tokens
        )
        signature = signed_url.encode_signature(key.sign(signed_url.message(algorithm, unsigned)))
        tokens = {
            "sg_v": signed_url.VERSION,
            "sg_id": request_id,
            "sg_exp": str(expires),
            "sg_kid": key.key_id,
            "sg_sig": signature,
        }
        if request.platform_tokens:
            tokens["msToken"] = signed_url.ms_token(request_id)
        return Signed(
            signed_url.assemble(unsigned, signature),
            self._info,
            user_agent=request.user_agent or policy.user_agent,
            tokens=tokens,
            expires_at=moment.when(expires),
            key_id=key.key_id,
            algorithm=algorithm,
        )

    def _active_algorithms(self) -> tuple[Algorithm, ...]:
        now = self._clock.now()
        return tuple(algorithm for algorithm in Algorithm if self._keys.active(algorithm, now) is not None)

    def _try_canary(self) -> str:
        """Why the canary failed, or "" when it held."""
        for algorithm in {self._policy.default_algorithm, *self._active_algorithms()}:
            try:
                request = SignRequest(_CANARY_ROOM, _CANARY_ID, algorithm=algorithm)
                signed = self._sign_one(request, _Moment(self._keys, self._clock))
                verdict = self.verify(signed.signed_url, self._clock.now())
            except Exception as error:  # noqa: BLE001  # whatever it is, the engine does not sign
                return f"The canary could not be signed with {algorithm.value}: {type(error).__name__}."
            if verdict.reason is not None:
                return f"The canary's {algorithm.value} signature does not hold: {verdict.reason.value}."
        return ""


class _Moment:
    """One look at the clock and at the keys, for as many signatures as are made between two turns."""

    def __init__(self, keys: SigningKeys, clock: Clock) -> None:
        self.monotonic = clock.monotonic()
        self._now = clock.now()
        self.time = self._now.timestamp()
        self._keys = keys
        self._active: dict[Algorithm, SigningKey | None] = {}
        self._moments: dict[int, datetime] = {}

    def key(self, algorithm: Algorithm) -> SigningKey | None:
        """The key that signs now, or None when there is none."""
        if algorithm not in self._active:
            self._active[algorithm] = self._keys.active(algorithm, self._now)
        return self._active[algorithm]

    def when(self, seconds: int) -> datetime:
        """That second; most signatures of a list end in the same one."""
        found = self._moments.get(seconds)
        if found is None:
            found = self._moments[seconds] = datetime.fromtimestamp(seconds, UTC)
        return found


def _invalid(reason: VerdictReason, message: str, key_id: str = "") -> Verdict:
    return Verdict(valid=False, reason=reason, message=message, key_id=key_id)
