"""One line for each engine that may be slow, so that whoever waits for it holds up nobody else.

A list leaves when the one before it is done. That is what makes native signing fast, and what would
make it as slow as a browser or another server when they share a list. So a job goes by the engine it
names, or that its key was last seen to be bound to: each slow engine has a batcher of its own, with
several lists in flight. What engine a key is bound to, only the line learns; so a key's first request
goes with the deployment's default, whose lane has several lists in flight as well wherever a slow
engine is enabled. A key's remembered engine chooses the company it waits in and nothing else: the line
asks anew which engine it is to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from servicekit import apikey
from servicekit.batching import Batcher
from servicekit.errors import SigngateError
from services.signer.jobs import Job

REMEMBERED: Final = 10_000
"""Keys bound to a slow engine; the one remembered first leaves first."""


class Lanes:
    """Submits as one `Batcher` does. `by_engine` has the default engine's lane."""

    def __init__(self, by_engine: Mapping[str, Batcher[Job, Job]], default: str) -> None:
        self._by_engine = by_engine
        self._default = by_engine[default]
        self._bound: dict[str, str] = {}

    @property
    def waiting(self) -> int:
        """Jobs that wait, in all lanes."""
        return sum(lane.waiting for lane in set(self._by_engine.values()))

    async def submit(self, job: Job, deadline: float | None = None, owner: str = "") -> Job:
        """See `Batcher.submit`. An owner's share is of each lane."""
        if len(self._by_engine) == 1:
            return await self._default.submit(job, deadline, owner)
        try:
            return await self._lane(job).submit(job, deadline, owner)
        finally:
            self._remember(job)

    async def submit_many(
        self, jobs: Sequence[Job], deadline: float | None = None, owner: str = ""
    ) -> list[Job | Exception]:
        """See `Batcher.submit_many`. Jobs of several lanes run side by side; answers are in order."""
        if len(self._by_engine) == 1:
            return await self._default.submit_many(jobs, deadline, owner)
        try:
            return await self._by_lane(jobs, deadline, owner)
        finally:
            for job in jobs:
                self._remember(job)

    async def _by_lane(
        self, jobs: Sequence[Job], deadline: float | None, owner: str
    ) -> list[Job | Exception]:
        lanes: dict[Batcher[Job, Job], list[int]] = {}
        for position, job in enumerate(jobs):
            lanes.setdefault(self._lane(job), []).append(position)
        if len(lanes) == 1:
            return await next(iter(lanes)).submit_many(jobs, deadline, owner)
        found = await asyncio.gather(
            *(_answers(lane, [jobs[n] for n in members], deadline, owner) for lane, members in lanes.items())
        )
        answers: dict[int, Job | Exception] = {}
        for members, results in zip(lanes.values(), found, strict=True):
            answers.update(zip(members, results, strict=True))
        return [answers[position] for position in range(len(jobs))]

    async def close(self) -> None:
        """See `Batcher.close`."""
        for lane in set(self._by_engine.values()):
            await lane.close()

    def _lane(self, job: Job) -> Batcher[Job, Job]:
        bound = self._bound.get(_key(job), "") if self._bound else ""
        for part in job.parts:
            lane = self._by_engine.get(part.wish.engine or bound)
            if lane is not None and lane is not self._default:
                return lane
        return self._default

    def _remember(self, job: Job) -> None:
        key = _key(job)
        if not key or job.caller is None:
            return
        engine = job.caller.engine
        if self._by_engine.get(engine, self._default) is self._default:
            self._bound.pop(key, None)
        elif self._bound.get(key) != engine:
            self._bound[key] = engine
            if len(self._bound) > REMEMBERED:
                del self._bound[next(iter(self._bound))]


def _key(job: Job) -> str:
    """The public part of a key, which names it; "" for other credentials."""
    credential = job.credential
    if credential is None or not credential.secret.startswith("sgk_"):
        return ""
    return credential.secret[: apikey.PUBLIC_LENGTH]


async def _answers(
    lane: Batcher[Job, Job], jobs: list[Job], deadline: float | None, owner: str
) -> Sequence[Job | Exception]:
    """A lane that takes none of them fails its own jobs, not those of the others."""
    try:
        return await lane.submit_many(jobs, deadline, owner)
    except SigngateError as error:
        return [error.again() for _ in jobs]
