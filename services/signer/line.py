"""The line: a list of jobs is identified, charged, signed and recorded as one.

    credentials → keys and the deny-set → quota → engines → usage stream → answers

What holds for every job, whatever happens to its neighbours:

* it is answered as signed only after its event is in the stream, under a live lease of its charge;
* what is not signed is not charged: it was never charged, or is refunded, or (when nobody can know
  whether its event was appended) its reservation ends by its lease, unless the event is there;
* a known caller's refusal or failure is an event too, with nothing charged;
* a peer that fails fails all the jobs that needed its answer, each with an error of its own.

Order matters: URLs were parsed before (a bad one is never charged), refunds come last and are waited
for by nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from time import perf_counter
from zlib import crc32

from servicekit import log, tracing
from servicekit.authn import Credential, SessionRevoked, Sessions
from servicekit.clock import Clock
from servicekit.errors import Cancelled, InvalidArgument, SigngateError, Unavailable
from services.signer.access import SCOPES, scope_missing
from services.signer.domain import Signed, SignRequest
from services.signer.engines.base import Engine
from services.signer.errors import EngineFailure, EngineUnavailable
from services.signer.jobs import (
    API_KEY,
    Caller,
    Charge,
    Decision,
    Job,
    Part,
    Refund,
    Refusal,
    quota_error,
)  # fmt: skip
from services.signer.lists import request_ids
from services.signer.metrics import EVENTS_LOST, STAGES, count_results
from services.signer.ports import Events, Keys, LeaseLost, Quota, Refunds, StreamUnknown
from services.signer.registry import Engines

_log = log.get("line")

_identify_time = STAGES.series("identify")
_charge_time = STAGES.series("charge")
_sign_time = STAGES.series("sign")
_record_time = STAGES.series("record")
_to_stream = {"messaging.system": "redis", "messaging.destination.name": "usage"}


class Line:
    """Runs lists of jobs; `run` is what a `Batcher` wants. Holds no state between lists."""

    def __init__(
        self,
        keys: Keys,
        sessions: Sessions,
        quota: Quota,
        engines: Engines,
        events: Events,
        refunds: Refunds,
        *,
        clock: Clock,
        shards: int,
    ) -> None:
        self._keys = keys
        self._sessions = sessions
        self._quota = quota
        self._engines = engines
        self._events = events
        self._refunds = refunds
        self._clock = clock
        self._shards = shards

    async def run(self, jobs: list[Job]) -> Sequence[Job | Exception]:
        """The jobs, each with its parts signed or failed; or the error of a job as a whole."""
        began = perf_counter()
        await self._identify(jobs)
        identified = perf_counter()
        _identify_time.observe(identified - began)
        lease = None
        wanted = self._choose(jobs)
        if wanted:
            lease = await self._charge(wanted)
            charged = perf_counter()
            _charge_time.observe(charged - identified)
            if lease is not None:
                await self._sign(wanted)
                _sign_time.observe(perf_counter() - charged)
        began = perf_counter()
        await self._record(jobs, lease)
        _record_time.observe(perf_counter() - began)
        count_results(jobs)
        return [job if job.error is None else job.error for job in jobs]

    # -- who calls ---------------------------------------------------------------------------------

    async def _identify(self, jobs: list[Job]) -> None:
        """Set each job's caller; or its error, and its caller too where a refusal names one."""
        credentials: dict[Credential, None] = {}
        session_ids: dict[str, None] = {}
        for job in jobs:
            if job.credential is not None:
                credentials[job.credential] = None
            elif job.session_id:
                session_ids[job.session_id] = None
        callers: dict[Credential, Caller | Refusal] = {}
        denials: dict[str, SigngateError | None] = {}
        if credentials and session_ids:
            callers, denials = await asyncio.gather(self._validate(credentials), self._denied(session_ids))
        elif credentials:
            callers = await self._validate(credentials)
        elif session_ids:
            denials = await self._denied(session_ids)
        for job in jobs:
            if job.credential is None:
                denial = denials.get(job.session_id)
                job.error = None if denial is None else denial.again()
            else:
                _recognise(job, callers[job.credential])
            if job.error is None and job.caller is not None and not job.caller.scopes >= SCOPES:
                job.error = scope_missing()

    async def _validate(self, credentials: Iterable[Credential]) -> dict[Credential, Caller | Refusal]:
        asked = list(credentials)
        try:
            return dict(zip(asked, await self._keys.validate(asked), strict=True))
        except SigngateError as error:
            # Fails closed: nobody is let through whose key nobody could look at.
            return dict.fromkeys(asked, Refusal(_peer_error(error)))

    async def _denied(self, session_ids: Iterable[str]) -> dict[str, SigngateError | None]:
        asked = list(session_ids)
        try:
            states = await self._sessions.states(asked)
        except SigngateError as error:
            # Fails closed: a signed-out session must not sign because Redis is away.
            return dict.fromkeys(asked, _peer_error(error))
        found = zip(asked, states, strict=True)
        return {sid: SessionRevoked() if state.denied else None for sid, state in found}

    # -- what it costs -----------------------------------------------------------------------------

    def _choose(self, jobs: list[Job]) -> list[tuple[Job, list[Part]]]:
        """The jobs to charge, with their parts that are well-formed and have an engine that is ready."""
        wanted = []
        unready: dict[str, bool] = {}
        for job in jobs:
            caller = job.caller
            if job.error is not None or caller is None:
                continue
            if job.gone:
                job.error = _gone()
                continue
            good = []
            for part in job.parts:
                if part.error is not None:
                    continue
                name = part.wish.engine or caller.engine or self._engines.default
                engine = self._engines.get(name)
                if engine is None:
                    part.error = _unknown_engine()
                    continue
                part.engine = name
                if name not in unready:
                    unready[name] = not engine.describe().ready
                if unready[name]:
                    part.error = EngineUnavailable(retry_after=1.0)
                    continue
                good.append(part)
            if good:
                wanted.append((job, good))
        return wanted

    async def _charge(self, wanted: list[tuple[Job, list[Part]]]) -> float | None:
        """Charge all jobs; returns the lease's end, or None when nothing could be decided."""
        charges = [
            Charge(job.charge_id, job.caller, len(good), job.partial)  # type: ignore[arg-type]  # see _choose
            for job, good in wanted
        ]
        try:
            decisions, lease = await self._quota.consume(charges)
        except SigngateError as error:
            # Fails closed. Whether quota counted before it failed is not known: taken back to be sure.
            known = _peer_error(error)
            for job, _ in wanted:
                job.error = known.again()
            self._refunds.later([Refund(c.charge_id, c.caller.user_id, 0) for c in charges])
            return None
        now = self._clock.time()
        for (job, good), decision in zip(wanted, decisions, strict=True):
            _apply(job, good, decision, now)
        return lease

    # -- signing -----------------------------------------------------------------------------------

    async def _sign(self, wanted: list[tuple[Job, list[Part]]]) -> None:
        by_engine: dict[str, list[tuple[Job, Part]]] = {}
        for job, good in wanted:
            if job.gone:
                job.error = _gone()
                continue
            if job.error is not None:
                continue
            for part in good:
                if part.error is None:
                    by_engine.setdefault(part.engine, []).append((job, part))
        groups = [self._sign_by(self._engines[name], members) for name, members in by_engine.items()]
        if len(groups) == 1:
            await groups[0]
        elif groups:
            await asyncio.gather(*groups)
        for job, _ in wanted:
            if job.gone:
                # Signed for nobody: not told, so not charged.
                job.error = _gone()
                for part in job.parts:
                    part.signed = None

    async def _sign_by(self, engine: Engine, members: list[tuple[Job, Part]]) -> None:
        requests = [part.request(job.deadline) for job, part in members]
        results = await _sign_all(engine, requests)
        for (_, part), result in zip(members, results, strict=True):
            if type(result) is Signed:
                part.signed = result
            else:
                part.error = result  # type: ignore[assignment]  # the other half of the union

    # -- what is recorded --------------------------------------------------------------------------

    async def _record(self, jobs: list[Job], lease: float | None) -> None:
        """Publish the events of all known callers; take back what then is not signed."""
        shards: dict[int, list[tuple[Job, Part]]] = {}
        any_signed = False
        now = self._clock.monotonic()
        for job in jobs:
            caller = job.caller
            if caller is None:
                continue
            job.took_ms = int((now - job.started) * 1000)
            members = shards.setdefault(crc32(caller.user_id.encode()) % self._shards, [])
            for part in job.parts:
                members.append((job, part))
                if part.signed is not None:
                    any_signed = True
        if not shards:
            return
        with tracing.span("publish usage", "PRODUCER", _to_stream):
            failures = await self._events.publish(shards, lease if any_signed else None)
        unknown: set[str] = set()
        for shard, error in failures.items():
            self._fail(shards[shard], error, unknown)
        if any(type(error) is LeaseLost for error in failures.values()):
            late = {shard: shards[shard] for shard in failures}
            for shard in await self._events.publish(late, None):
                EVENTS_LOST.inc(len(late[shard]))
        refunds = [refund for job in jobs if (refund := _unused(job, unknown)) is not None]
        if refunds:
            self._refunds.later(refunds)

    def _fail(self, members: list[tuple[Job, Part]], error: Unavailable, unknown: set[str]) -> None:
        """Answer none of a shard's members as signed."""
        for job, part in members:
            if part.signed is not None:
                part.signed = None
                part.error = error.again()
                if type(error) is StreamUnknown:
                    # Refunding an event that is in the stream would count it in the rows and not in
                    # the quota. If it is not there, the reservation ends with its lease.
                    unknown.add(job.charge_id)
        if type(error) is not LeaseLost:
            EVENTS_LOST.inc(len(members))
            ids = request_ids([job for job, _ in members])
            _log.warning("events not published", reason=error.reason, count=len(members), request_ids=ids)


def _recognise(job: Job, answer: Caller | Refusal) -> None:
    if isinstance(answer, Caller):
        job.caller = answer
        return
    job.error = answer.error.again()
    if answer.user_id:
        # Known, so it is accounted for; but it may do nothing.
        job.caller = Caller(answer.user_id, answer.key_id, API_KEY, frozenset())


def _apply(job: Job, good: list[Part], decision: Decision, now: float) -> None:
    if decision.undecided:
        job.error = Unavailable(
            "This account's counters are not at hand. Try again shortly.",
            reason="QUOTA_UNAVAILABLE",
            retry_after=decision.retry_after or 1.0,
        )
        return
    job.limit = decision.limit
    job.day = decision.day
    job.granted = granted = decision.granted
    if granted < len(good):
        for part in good[granted:]:
            part.error = quota_error(decision, now)


def _unused(job: Job, unknown: set[str]) -> Refund | None:
    """What was charged and is not signed. Nothing of a charge whose event may be in the stream."""
    if not job.granted or job.caller is None or job.charge_id in unknown:
        return None
    unused = job.granted - sum(part.signed is not None for part in job.parts)
    return Refund(job.charge_id, job.caller.user_id, unused) if unused else None


async def _sign_all(engine: Engine, requests: list[SignRequest]) -> list[Signed | SigngateError]:
    """The engine's answers; an engine that breaks its promise fails its own members and no others."""
    try:
        with tracing.span(f"engine {engine.name}"):
            results = await engine.sign(requests)
        if len(results) == len(requests):
            return results
        _log.error("engine gave another number of answers", engine=engine.name)
    except Exception:  # noqa: BLE001  # logged; these members fail, their neighbours by other engines go on
        _log.exception("engine raised", engine=engine.name)
    return [EngineFailure() for _ in requests]


def _peer_error(error: SigngateError) -> SigngateError:
    """A peer's failure as the caller may see it: come back soon. A bug over there stays INTERNAL here."""
    if isinstance(error, Unavailable):
        if error.retry_after is None:
            error.retry_after = 1.0
        return error
    if error.status == "DEADLINE_EXCEEDED":
        late = Unavailable(reason="PEER_TIMEOUT", retry_after=1.0)
        late.__cause__ = error
        return late
    if error.status == "INTERNAL":
        return error
    broken = Unavailable(reason="PEER_UNAVAILABLE", retry_after=1.0)
    broken.__cause__ = error
    return broken


def _gone() -> Cancelled:
    return Cancelled("The caller went away.")


def _unknown_engine() -> InvalidArgument:
    return InvalidArgument.field("engine", "no enabled engine has this name", "ENGINE_UNKNOWN")
