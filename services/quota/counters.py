"""The counters in Redis: every call is one Lua script, atomic for a user. The only Redis of the service.

One server decides a whole list in one EVALSHA. A cluster gets one a user, pipelined by node, for a
script may touch one hash tag only; a node that is away fails its own users and nobody else's.

Failure policy: closed. Every trouble, a slow answer included, is `CountersUnavailable` within
`timeout`; after `failures` of them in a row a node is not asked at all for `reset` seconds (circuit
breaker), so that a Redis that hangs costs its callers nothing. Whether a call that timed out did count
is unknown; repeating it is safe, and so is not to: the reservation ends with its lease.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import AskError, MovedError, NoScriptError, RedisError, TryAgainError

from servicekit.redis import Redis, RedisUnavailable, translated
from services.quota import metrics, wire
from services.quota.domain import (
    Charge,
    ChargeRef,
    Committed,
    Inspection,
    Missing,
    Outcome,
    Plan,
    Query,
)
from services.quota.epochs import SINGLE, Epochs, base, lua
from services.quota.errors import CountersUnavailable

T = TypeVar("T")
Group = tuple[str, bytes, Sequence[Charge]]
"""A user, their packed limits, their charges."""
Args = Callable[[Sequence[T]], tuple[Any, ...]]
"""What follows the moment and the generation in a script's arguments, for some of the groups."""


@dataclass(frozen=True, slots=True)
class CounterSettings:
    """How counters are kept. Times are seconds; see `config.QuotaSettings`.

    `replica` differs between processes that share a Redis. It stands in the scripts, so each process has
    its own in the server's cache: not to be known there means that the server was started anew, and every
    process learns it by its own first call.
    """

    lease: float = 5.0
    timeout: float = 0.08
    failures: int = 5
    reset: float = 0.5
    replica: str = ""


class Script(NamedTuple):
    """A script, and the name that Redis gives it."""

    text: str
    sha: str


class Counters:
    """Charges, refunds and settlements of users. Raises `CountersUnavailable`, nothing else by itself.

    `now` gives the present in epoch microseconds to tests; without it each Redis uses its own clock,
    which is the clock of the stream's ids and of the signer's fence too, whatever replica asks.
    `watermark` is the latest one known: what was published before it is settled.
    """

    def __init__(
        self, client: Redis, epochs: Epochs, settings: CounterSettings, now: Callable[[], int] | None = None
    ) -> None:
        self._client: Any = client
        self._epochs = epochs
        self._scripts = {
            name: _script(f"-- {settings.replica}\n{lua(name)}")
            for name in ("consume", "refund", "settle", "load", "inspect")
        }
        self._cluster = isinstance(client, RedisCluster)
        self._timeout = settings.timeout
        self._lease = round(settings.lease * 1e6)
        self._now = now or (lambda: 0)
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=settings.failures, default_ttl=settings.reset
        )
        self._breakers.add_listener(_report_breaker)
        self.watermark = 0

    @property
    def lease(self) -> int:
        """Microseconds that a reservation is held."""
        return self._lease

    async def consume(self, groups: Sequence[Group]) -> Outcome:
        """Decide the charges of each user, in order. Users of a node that is away are in no answer."""
        outcome = Outcome(0, {}, [])
        for part, reply in await self._run(
            "consume",
            groups,
            lambda part: (
                self._lease,
                self.watermark,
                wire.pack_charges((pools, charges) for _, pools, charges in part),
            ),
        ):
            found = wire.unpack_decisions(reply, ((user_id, len(charges)) for user_id, _, charges in part))
            # Nodes of a cluster have clocks of their own: the earliest end holds for all.
            outcome.lease_end = min(outcome.lease_end or found.lease_end, found.lease_end)
            outcome.decisions.update(found.decisions)
            outcome.missing += found.missing
            outcome.released += found.released
        return outcome

    async def refund(self, groups: Mapping[str, Sequence[ChargeRef]]) -> dict[str, list[int]]:
        """Take charges back; the units taken back, by user, in order."""
        done: dict[str, list[int]] = {}
        for part, reply in await self._run(
            "refund", list(groups.items()), lambda part: (wire.pack_refs(refs for _, refs in part),)
        ):
            units = iter(reply)
            done.update({user_id: [next(units) for _ in refs] for user_id, refs in part})
        return done

    async def settle(
        self, groups: Mapping[str, Sequence[ChargeRef]], watermark: int
    ) -> tuple[int, int, list[str]]:
        """Make charges final: how many became so, units taken back, users whose counters are in doubt.

        `watermark` must hold once these charges are settled. Raises when not all of them could be.
        """
        settled = released = 0
        stale = []
        replies = await self._run(
            "settle",
            list(groups.items()),
            lambda part: (watermark, wire.pack_refs(refs for _, refs in part)),
        )
        for part, reply in replies:
            settled += sum(reply[0::3])
            released += sum(reply[1::3])
            stale += [group[0] for group, doubt in zip(part, reply[2::3], strict=True) if doubt]
        if sum(len(part) for part, _ in replies) < len(groups):
            raise CountersUnavailable  # some node is away: the whole call is to be repeated, safely
        return settled, released, stale

    async def load(self, users: Sequence[Missing], committed: Mapping[str, Committed]) -> list[str]:
        """Set users' counters from what is committed; returns whose something was settled meanwhile."""
        again = []
        for part, reply in await self._run(
            "load", users, lambda part: (wire.pack_committed(part, committed),)
        ):
            again += [user.user_id for user, retry in zip(part, reply, strict=True) if retry]
        return again

    async def inspect(self, query: Query, plan: Plan) -> Inspection | Missing:
        """One caller's limits, or that their counters must be loaded first."""
        ((_, reply),) = await self._run(
            "inspect", [(query.user_id,)], lambda _: (self.watermark, wire.pack_query(query, plan))
        )
        now, status, day, version, used, reserved, limits = wire.unpack_inspection(reply)
        return Missing(query.user_id, day, version) if status else Inspection(now, used, limits, reserved)

    async def _run(self, name: str, groups: Sequence[T], args: Args[T]) -> list[tuple[Sequence[T], Any]]:
        """Run a script over groups, whose first member is the user; the parts with their replies.

        Parts of a node that is away are left out; raises only when all of them are.
        """
        if not groups:
            return []
        if not self._cluster:
            async with self._guard(SINGLE):
                return [(groups, await self._call(SINGLE, self._scripts[name], groups, args))]
        nodes: dict[str, list[T]] = {}
        for group in groups:
            nodes.setdefault(self._epochs.node_of(group[0]), []).append(group)  # type: ignore[index]
        answers = await asyncio.gather(
            *(self._run_node(node, name, part, args) for node, part in nodes.items()), return_exceptions=True
        )
        done: list[tuple[Sequence[T], Any]] = []
        for answer in answers:
            if isinstance(answer, list):
                done += answer
            elif not isinstance(answer, CountersUnavailable):
                raise answer
        if not done:
            raise CountersUnavailable(retry_after=1.0)
        return done

    async def _call(self, node: str, script: Script, groups: Sequence[T], args: Args[T]) -> Any:
        """One script call for groups whose keys are on one node, and in a cluster in one slot."""
        keys = [base(group[0]) for group in groups]  # type: ignore[index]  # a tuple, as told
        generation = await self._epochs.generation(node)
        with translated():
            try:
                return await self._client.evalsha(
                    script.sha, len(keys), *keys, self._now(), generation, *args(groups)
                )
            except NoScriptError:
                # Started anew: what it has may lack the last moments. See `CounterSettings.replica`.
                epoch = await self._epochs.learn(node)
                generation = 0 if epoch is None else epoch.generation
                return await self._client.eval(
                    script.text, len(keys), *keys, self._now(), generation, *args(groups)
                )

    async def _run_node(
        self, node: str, name: str, groups: Sequence[T], args: Args[T]
    ) -> list[tuple[Sequence[T], Any]]:
        """One script call a group, pipelined to the cluster's node that holds them."""
        script = self._scripts[name]
        async with self._guard(node):
            generation = await self._epochs.generation(node)
            with translated():
                pipe = self._client.pipeline()
                for group in groups:
                    # Not `pipe.evalsha`: redis-py bars it, for scripts of several slots. These have one.
                    user_id: str = group[0]  # type: ignore[index]  # a tuple, as told
                    pipe.execute_command(
                        "EVALSHA", script.sha, 1, base(user_id), self._now(), generation, *args([group])
                    )
                replies = await pipe.execute(raise_on_error=False)
                for place, reply in enumerate(replies):
                    if isinstance(reply, NoScriptError):
                        replies[place] = await self._call(node, script, [groups[place]], args)
                    elif isinstance(reply, RedisError):
                        raise reply
        return [([group], reply) for group, reply in zip(groups, replies, strict=True)]

    @asynccontextmanager
    async def _guard(self, node: str) -> AsyncIterator[None]:
        """A time limit, and a circuit breaker of the node's own."""
        try:
            breaker = await self._breakers.get_breaker(node, exclude=[asyncio.CancelledError])
            async with breaker, asyncio.timeout(self._timeout):
                yield
        except OpenedState as error:
            metrics.REDIS_FAILURES.labels("open").inc()
            raise CountersUnavailable(retry_after=1.0) from error.with_traceback(None)
        except TimeoutError as error:
            metrics.REDIS_FAILURES.labels("slow").inc()
            raise CountersUnavailable(retry_after=1.0) from error
        except (RedisUnavailable, MovedError, AskError, TryAgainError) as error:
            # The last three: slots are moving between nodes faster than the driver follows.
            metrics.REDIS_FAILURES.labels("failed").inc()
            raise CountersUnavailable(retry_after=1.0) from error


def _script(text: str) -> Script:
    # Redis names scripts by SHA-1; nothing here rests on its strength.
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _report_breaker(name: str, kind: str, event: Any) -> None:
    if kind == "state_changed":
        metrics.BREAKER_OPEN.labels(name).set(event.state != "closed")
