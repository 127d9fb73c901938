"""The signer's use cases, without a transport: who asks, sign, verify, and what signs here.

A face (gRPC or HTTP) turns a request into `Wish`es, calls `identify` with its headers, makes a `Job`
and hands it in. What comes back is the job, with every part signed or failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from servicekit import apikey, context, tracing
from servicekit.authn import TokenVerifier, find_credential
from servicekit.clock import Clock
from servicekit.errors import InvalidArgument, PermissionDenied, SigngateError, Unauthenticated
from servicekit.principal import Principal
from servicekit.telemetry import CREDENTIALS
from servicekit.tokens import NOBODY
from services.signer.access import require_user
from services.signer.domain import EngineStatus, PublishedKey, Verdict
from services.signer.door import Door
from services.signer.jobs import FREE, Caller, Identity, Job, Part, Wish
from services.signer.registry import Engines
from services.signer.room_url import parse

MAX_BATCH: Final = 100
MAX_USER_AGENT: Final = 512
MAX_ENGINE: Final = 64

Metadata = Iterable[tuple[str, str | bytes]]


class RequestIds(Protocol):
    """Where request ids come from: UUIDv7 as text."""

    def __call__(self) -> str: ...


class Lines(Protocol):
    """Where jobs are handed in: a `Batcher`, or several as `Lanes`."""

    async def submit(self, item: Job, deadline: float | None = None, owner: str = "", /) -> Job:
        """See `Batcher.submit`."""
        ...

    async def submit_many(
        self, items: Sequence[Job], deadline: float | None = None, owner: str = "", /
    ) -> list[Job | Exception]:
        """See `Batcher.submit_many`."""
        ...


@dataclass(frozen=True, slots=True)
class EngineListing:
    """One engine's account of itself, and whether requests that name none go to it."""

    status: EngineStatus
    default: bool


class SignerService:
    """See the module. `singles`, `streams` and `batches` run the same line over lists of jobs: of one part,
    of one part that came by a stream, of many parts.

    Batches and streams have lists of their own, so that a few of them do not hold up many single requests.
    `door` tells whose a credential is before it takes a place in any of them.
    `max_wait` is how long, in seconds, a job without a nearer deadline may wait and be worked on.
    """

    def __init__(  # noqa: PLR0913  # one keyword for each part
        self,
        *,
        tokens: TokenVerifier,
        door: Door,
        singles: Lines,
        streams: Lines,
        batches: Lines,
        engines: Engines,
        clock: Clock,
        request_ids: RequestIds,
        max_wait: float,
    ) -> None:
        self._tokens = tokens
        self._door = door
        self._singles = singles
        self._streams = streams
        self._batches = batches
        self._engines = engines
        self._clock = clock
        self._request_ids = request_ids
        self._max_wait = max_wait

    async def identify(self, metadata: Metadata) -> Identity:
        """Who asks. No I/O for an API key; none for a token whose issuer's keys are known.

        A token is verified here and not in the line, so that a slow look at an issuer's keys holds up
        nobody else. Raises `Unauthenticated`, `PermissionDenied`, or `Unavailable` when an issuer's
        keys can't be read.
        """
        try:
            credential = find_credential(metadata)
            if credential is None:
                raise Unauthenticated(
                    "Send an access token or an API key: authorization: Bearer <credential>,"
                    " or x-api-key: <key>.",
                    reason="CREDENTIAL_MISSING",
                )
            if credential.kind == "key":
                apikey.check(credential.secret)
                return Identity(credential)
            return _identity(await self._tokens.verify(credential.secret))
        except SigngateError as error:
            CREDENTIALS.labels("signer", error.reason).inc()
            raise

    def job(
        self, identity: Identity, wishes: Sequence[Wish], deadline: float | None, *, partial: bool = False
    ) -> Job:
        """A job of one charge, its URLs parsed. `deadline` is monotonic.

        With `partial` fewer than all may be granted: the first ones that are well-formed.
        """
        started = self._clock.monotonic()
        latest = started + self._max_wait
        job = Job(
            [self._part(wish) for wish in wishes],
            arrived=self._clock.time(),
            started=started,
            deadline=latest if deadline is None or deadline > latest else deadline,
            partial=partial,
        )
        job.credential, job.caller, job.session_id = identity
        job.call, job.trace = context.current(), tracing.current()
        return job

    async def sign(self, job: Job) -> Part:
        """The one part of a job, signed. Raises what failed it."""
        await self._submit(self._singles, job)
        part = job.parts[0]
        if part.error is not None:
            raise part.error
        return part

    async def sign_batch(self, job: Job) -> Job:
        """The job, each of its parts signed or failed. Raises only what fails all of them at once."""
        return await self._submit(self._batches, job)

    async def sign_many(self, jobs: Sequence[Job], owner: str) -> Sequence[Job | Exception]:
        """Answers to several jobs of one part, in order: the job, or what failed it whole.

        `owner` is the account whose stream they came by.
        """
        try:
            return await self._streams.submit_many(jobs, max(job.deadline or 0.0 for job in jobs), owner)
        except asyncio.CancelledError:
            for job in jobs:
                job.gone = True
            raise
        except SigngateError as error:
            return [error.again() for _ in jobs]

    def engines(self) -> list[EngineListing]:
        """The enabled engines, by name."""
        found = [
            EngineListing(engine.describe(), default=engine.name == self._engines.default)
            for engine in self._engines
        ]
        return sorted(found, key=lambda listing: listing.status.info.name)

    def verify(self, url: str) -> Verdict:
        """Whether a URL carries a signature of this deployment's native engine that holds now."""
        return self._engines.native.verify(url, self._clock.now())

    def published_keys(self) -> Sequence[PublishedKey]:
        """The native engine's public keys, newest first."""
        return self._engines.native.published_keys()

    async def _submit(self, batcher: Lines, job: Job) -> Job:
        owner = await self._door.owner(Identity(job.credential, job.caller), job.deadline)
        try:
            return await batcher.submit(job, job.deadline, owner)
        except asyncio.CancelledError:
            # The line looks at this before each step that would charge or be charged for.
            job.gone = True
            raise

    def _part(self, wish: Wish) -> Part:
        request_id = self._request_ids()
        if wish.wrong is not None:
            return Part(request_id, wish, None, wish.wrong)
        try:
            room = parse(wish.room_url)
            _check(wish)
        except SigngateError as error:
            return Part(request_id, wish, None, error)
        return Part(request_id, wish, room, None)


def _identity(principal: Principal) -> Identity:
    if principal.user_id == NOBODY:
        raise PermissionDenied(
            "A service token without a user has no quota to sign with.", reason="NO_ACCOUNT"
        )
    require_user(principal)
    session = "" if principal.session_id is None else str(principal.session_id)
    return Identity(None, Caller(str(principal.user_id), "", FREE, principal.scopes), session)


def _check(wish: Wish) -> None:
    """Refuse what no engine would take. Raises `InvalidArgument`."""
    agent = wish.user_agent
    if agent and (len(agent) > MAX_USER_AGENT or not agent.isascii() or not agent.isprintable()):
        raise InvalidArgument.field("user_agent", f"at most {MAX_USER_AGENT} printable ASCII characters")
    if wish.engine and len(wish.engine) > MAX_ENGINE:
        raise InvalidArgument.field("engine", f"at most {MAX_ENGINE} characters")
    if wish.ttl is not None and not wish.ttl > 0:
        raise InvalidArgument.field("ttl", "must be positive")
