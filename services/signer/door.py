"""Validates a credential before it may hold a place in the line or an open stream.

The line validates each credential again, so the door provides fairness and not security: waiting requests are
counted by account, and the account is known only once its credential is valid. A credential that this process
has not yet seen as valid is validated here first, in separate batches. So a flood of invalid keys waits at
the door, counted by client address, and takes no place and no time from the line.

The owner of a valid credential is cached, under a hash that only this process can compute, in a bounded table
that invalid credentials never enter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from servicekit.addresses import bucket
from servicekit.authn import Credential, SessionRevoked, Sessions
from servicekit.batching import Batcher
from servicekit.errors import SigngateError, Unauthenticated
from servicekit.telemetry import CREDENTIALS
from services.signer.access import SCOPES, scope_missing
from services.signer.jobs import Caller, Identity, Refusal
from services.signer.metrics import UNKNOWN
from services.signer.ports import Keys

REMEMBERED: Final = 50_000
"""Credentials whose owner is known; the one remembered first leaves first."""
MAX_LIST: Final = 256


class Door:
    """Validates credentials in batches. At most `waiting` wait, with a share for each client address."""

    def __init__(self, keys: Keys, sessions: Sessions, *, waiting: int) -> None:
        self._keys = keys
        self._sessions = sessions
        self._owners: dict[int, str] = {}
        self._batcher: Batcher[Credential, Caller | Refusal] = Batcher(
            self._validate, name="door", max_batch=min(MAX_LIST, waiting), max_waiting=waiting
        )

    async def owner(self, identity: Identity, deadline: float | None) -> str:
        """The account that a credential belongs to. No I/O for one that this process has seen hold.

        Also the account of a credential that was proven and does not hold, such as a revoked key: what
        comes of its request is its owner's to see. Raises what `admit` raises for all others.
        """
        if identity.caller is not None:
            return identity.caller.user_id
        credential = _given(identity)
        known = self._owners.get(hash(credential.secret))
        if known is not None:
            return known
        answer = await self._ask(credential, deadline)
        if isinstance(answer, Refusal) and not answer.user_id:
            UNKNOWN.labels(answer.error.reason).inc()
            raise answer.error.again()
        self._remember(credential, answer.user_id)
        return answer.user_id

    async def admit(self, identity: Identity, deadline: float | None = None) -> Caller:
        """Whom the credential belongs to, validated now. Raises `Unauthenticated`, or `Unavailable`.

        `Overloaded` when too many wait, `ShareUsed` when too many of this address do; `deadline` is
        monotonic.
        """
        if identity.caller is not None:
            if identity.session_id:
                (state,) = await self._sessions.states((identity.session_id,))
                if state.denied:
                    raise SessionRevoked
            return identity.caller
        credential = _given(identity)
        answer = await self._ask(credential, deadline)
        if isinstance(answer, Refusal):
            CREDENTIALS.labels("signer", answer.error.reason).inc()
            raise answer.error.again()
        self._remember(credential, answer.user_id)
        return answer

    async def close(self) -> None:
        """Answer those who wait, and return."""
        await self._batcher.close()

    async def _ask(self, credential: Credential, deadline: float | None) -> Caller | Refusal:
        return await self._batcher.submit(credential, deadline, bucket(credential.client_ip) or "unknown")

    async def _validate(self, credentials: list[Credential]) -> Sequence[Caller | Refusal]:
        distinct = list(dict.fromkeys(credentials))
        if len(distinct) == len(credentials):
            return await self._keys.validate(credentials)
        found = dict(zip(distinct, await self._keys.validate(distinct), strict=True))
        return [found[credential] for credential in credentials]

    def _remember(self, credential: Credential, owner: str) -> None:
        self._owners[hash(credential.secret)] = owner
        if len(self._owners) > REMEMBERED:
            del self._owners[next(iter(self._owners))]


async def standing(
    identities: Sequence[Identity], keys: Keys, sessions: Sessions
) -> list[SigngateError | None]:
    """What each credential that held before, and may sign, is refused with now; `None` where it still holds.

    What can't be looked up counts as holding: for credentials that do nothing at the moment, and are
    validated again before they do. `identities` has as many keys as one call to the keys service takes.
    """
    credentials = list(dict.fromkeys(one.credential for one in identities if one.credential is not None))
    session_ids = list(dict.fromkeys(one.session_id for one in identities if one.session_id))
    refused, denied = await asyncio.gather(_refused(credentials, keys), _denied(session_ids, sessions))
    found: list[SigngateError | None] = []
    for one in identities:
        if one.credential is not None:
            found.append(refused.get(one.credential))
        else:
            found.append(SessionRevoked() if one.session_id in denied else None)
    return found


async def _refused(credentials: list[Credential], keys: Keys) -> dict[Credential, SigngateError]:
    if not credentials:
        return {}
    try:
        answers = await keys.validate(credentials)
    except SigngateError:
        return {}
    found: dict[Credential, SigngateError] = {}
    for credential, answer in zip(credentials, answers, strict=True):
        if isinstance(answer, Refusal):
            if isinstance(answer.error, Unauthenticated):
                found[credential] = answer.error.again()
        elif not answer.scopes >= SCOPES:
            found[credential] = scope_missing()
    return found


async def _denied(session_ids: list[str], sessions: Sessions) -> set[str]:
    if not session_ids:
        return set()
    try:
        answers = await sessions.states(session_ids)
    except SigngateError:
        return set()
    return {session_id for session_id, state in zip(session_ids, answers, strict=True) if state.denied}


def _given(identity: Identity) -> Credential:
    if identity.credential is None:
        raise ValueError("the identity has no credential")
    return identity.credential
