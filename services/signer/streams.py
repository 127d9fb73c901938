"""The open SignStream calls of this process: how many a caller may open, and which ones must end.

A stream holds memory, a call at the edge and a place on a connection for as long as its client wants. So its
credential is validated before it opens, streams are counted by key, by account and in total, and one check a
second ends the streams that send nothing, do not read, or whose credential is no longer valid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

from servicekit.authn import Sessions
from servicekit.clock import Clock
from servicekit.errors import SigngateError, Unauthenticated
from servicekit.slots import Slots
from services.signer.access import SCOPES, scope_missing
from services.signer.door import Door, standing
from services.signer.errors import FirstMessageTimeout, StreamIdle, StreamStalled
from services.signer.jobs import Caller, Identity
from services.signer.metrics import STREAMS_ENDED, STREAMS_OPEN
from services.signer.ports import Keys

LOOK_EVERY: Final = 1.0
_list_size: Final = 500
_too_many: Final = "Too many streams are open. One stream carries any number of requests: close some."


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """See `SignerSettings`. Times are seconds."""

    total: int = 2048
    by_user: int = 64
    by_key: int = 32
    first_message: float = 10.0
    idle: float = 300.0
    stall: float = 30.0
    recheck: float = 2.0


class Stream(Protocol):
    """What is looked at: see `streaming.SignStream`."""

    @property
    def progress(self) -> int:
        """Messages read and answers written; 0 before the first message."""
        ...

    @property
    def busy(self) -> bool:
        """Whether requests wait, are signed, or have answers that are not written."""
        ...

    @property
    def writing(self) -> bool:
        """Whether an answer waits for the client to read."""
        ...

    async def identify(self) -> Identity:
        """Its credential, looked at again as far as that takes no I/O. Raises `Unauthenticated`."""
        ...

    def end(self, error: SigngateError) -> None:
        """End the call with this error, whatever it is doing."""
        ...

    def stop(self) -> None:
        """Read no more; answer what was read, then end."""
        ...


class _Open:
    """One open stream, and when it last did anything."""

    __slots__ = ("identity", "seen", "since", "stream")

    def __init__(self, stream: Stream, identity: Identity, now: float) -> None:
        self.stream = stream
        self.identity = identity
        self.seen = 0
        self.since = now


class Streams:
    """Admits streams and ends them. Every slot is released when its call ends, however it ends."""

    def __init__(
        self, door: Door, keys: Keys, sessions: Sessions, limits: StreamLimits, clock: Clock
    ) -> None:
        self._door = door
        self._keys = keys
        self._sessions = sessions
        self._limits = limits
        self._clock = clock
        self._users = _slots(limits.total, limits.by_user, "user")
        self._by_key = _slots(limits.total, limits.by_key, "key")
        self._open: dict[int, _Open] = {}
        STREAMS_OPEN.set_function(lambda: len(self._open))

    async def admit(self, identity: Identity) -> Caller:
        """Prove the credential and its scope. Raises as `Door.admit` does, and `PermissionDenied`."""
        caller = await self._door.admit(identity)
        if not caller.scopes >= SCOPES:
            raise scope_missing()
        return caller

    @contextmanager
    def opened(self, stream: Stream, identity: Identity, caller: Caller) -> Iterator[None]:
        """The stream is open for the block. Raises `ResourceExhausted` (STREAM_LIMIT) beyond a limit."""
        key = caller.key_id or identity.session_id or caller.user_id
        with self._users.taken(caller.user_id), self._by_key.taken(key):
            self._open[id(stream)] = _Open(stream, identity, self._clock.monotonic())
            try:
                yield
            finally:
                del self._open[id(stream)]

    async def watch(self) -> None:
        """Look at all open streams, for ever."""
        rechecked = self._clock.monotonic()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            self.end_quiet()
            now = self._clock.monotonic()
            if now - rechecked >= self._limits.recheck:
                rechecked = now
                await self.end_revoked()

    def end_quiet(self) -> None:
        """End the streams that do nothing for too long."""
        now = self._clock.monotonic()
        for one in list(self._open.values()):
            error = self._quiet(one, now)
            if error is not None:
                _end(one.stream, error)

    async def end_revoked(self) -> None:
        """End the idle streams whose credential is no longer valid.

        The credentials of active streams are validated with each batch of requests.
        """
        idle = [one for one in self._open.values() if not one.stream.busy]
        for at in range(0, len(idle), _list_size):
            part = idle[at : at + _list_size]
            found = await standing([one.identity for one in part], self._keys, self._sessions)
            for one, error in zip(part, found, strict=True):
                if error is None:
                    error = await _expired(one.stream)  # noqa: PLW2901  # the other half of one question
                if error is not None:
                    _end(one.stream, error)

    def stop(self) -> None:
        """End all, each after the answers to what was read: streams would outlast any grace."""
        for one in list(self._open.values()):
            one.stream.stop()

    def _quiet(self, one: _Open, now: float) -> SigngateError | None:
        stream, limits = one.stream, self._limits
        if stream.progress != one.seen:
            one.seen, one.since = stream.progress, now
            return None
        quiet = now - one.since
        if stream.writing:
            return StreamStalled() if quiet >= limits.stall else None
        if stream.busy:
            one.since = now  # it waits for us
            return None
        if not stream.progress:
            return FirstMessageTimeout() if quiet >= limits.first_message else None
        return StreamIdle() if quiet >= limits.idle else None


def _slots(total: int, by_owner: int, by: str) -> Slots:
    return Slots(total, by_owner, reason="STREAM_LIMIT", message=_too_many, by=by, retry_after=5.0)


async def _expired(stream: Stream) -> SigngateError | None:
    try:
        await stream.identify()
    except Unauthenticated as error:
        return error.again()
    except SigngateError:
        pass  # an issuer's keys can't be read now: the stream does nothing
    return None


def _end(stream: Stream, error: SigngateError) -> None:
    STREAMS_ENDED.labels(error.reason).inc()
    stream.end(error)
