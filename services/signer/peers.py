"""The signer's peers, over their generated stubs: keys and quota, and refunds that nobody waits for."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import grpc

from servicekit import log
from servicekit.authn import Credential
from servicekit.errors import SigngateError, Unavailable
from servicekit.peers import KeyServiceClient, refusal_of
from services.signer.jobs import API_KEY, FREE, Caller, Charge, Decision, Limit, Refund, Refusal
from services.signer.metrics import REFUNDS
from services.signer.ports import Quota
from signgate.common.v1 import quota_pb2
from signgate.keys.v1 import validation_pb2
from signgate.quota.v1 import enforcement_pb2 as pb
from signgate.quota.v1 import enforcement_pb2_grpc

_pools: Final = {FREE: quota_pb2.POOL_FREE, API_KEY: quota_pb2.POOL_API_KEY}
_kinds: Final[dict[int, str]] = {
    quota_pb2.LIMIT_KIND_UNSPECIFIED: "",
    quota_pb2.LIMIT_KIND_USER_DAY: "user_day",
    quota_pb2.LIMIT_KIND_USER_MINUTE: "user_minute",
    quota_pb2.LIMIT_KIND_KEY_DAY: "key_day",
    quota_pb2.LIMIT_KIND_KEY_MINUTE: "key_minute",
}


class BadAnswer(Unavailable):
    """A peer broke its contract: nothing it said can be relied on."""

    reason = "PEER_UNAVAILABLE"


class KeysClient:
    """See `ports.Keys`."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout: float) -> None:
        self._client = KeyServiceClient(channel, timeout=timeout)

    async def validate(self, credentials: Sequence[Credential]) -> Sequence[Caller | Refusal]:
        """See `ports.Keys.validate`."""
        answers = await self._client.validate_many(credentials)
        if len(answers) != len(credentials):
            raise BadAnswer(retry_after=1.0)
        return [_caller(answer) for answer in answers]


class QuotaClient:
    """See `ports.Quota`."""

    def __init__(self, channel: grpc.aio.Channel, *, timeout: float) -> None:
        self._stub = enforcement_pb2_grpc.QuotaEnforcementServiceStub(channel)
        self._timeout = timeout

    async def consume(self, charges: Sequence[Charge]) -> tuple[Sequence[Decision], float]:
        """See `ports.Quota.consume`."""
        request = pb.ConsumeRequest()
        for charge in charges:
            _write(request.charges.add(), charge)
        response: pb.ConsumeResponse = await self._stub.Consume(request, timeout=self._timeout)
        if len(response.decisions) != len(charges):
            raise BadAnswer(retry_after=1.0)
        lease = response.lease_expires_at
        return [_decision(decision) for decision in response.decisions], lease.seconds + lease.nanos / 1e9

    async def refund(self, refunds: Sequence[Refund]) -> None:
        """See `ports.Quota.refund`."""
        request = pb.RefundRequest(
            charges=[pb.ChargeRef(charge_id=r.charge_id, user_id=r.user_id, units=r.units) for r in refunds]
        )
        await self._stub.Refund(request, timeout=self._timeout)

    async def inspect(self, caller: Caller) -> Sequence[Limit]:
        """See `limits.Inspector.inspect`."""
        request = pb.InspectRequest(
            user_id=caller.user_id,
            pool=_pools[caller.pool],
            key_id=caller.key_id,
            key_daily_limit=caller.daily_limit,
            key_per_minute=caller.per_minute,
        )
        response: pb.InspectResponse = await self._stub.Inspect(request, timeout=self._timeout)
        return [_limit(state) for state in response.limits]


class RefundQueue:
    """Refunds in the background, in lists, each tried a few times.

    What is given up, or lost with the process, is taken back by quota itself when its lease has
    ended: a refund is only the faster way. So the queue is bounded and drops its oldest.
    """

    def __init__(self, quota: Quota, *, tries: int = 4, pause: float = 0.25, bound: int = 20_000) -> None:
        self._quota = quota
        self._tries = tries
        self._pause = pause
        self._waiting: deque[Refund] = deque(maxlen=bound)
        self._work = asyncio.Event()

    def later(self, refunds: Sequence[Refund]) -> None:
        """See `ports.Refunds.later`."""
        self._waiting.extend(refunds)
        self._work.set()

    async def run(self) -> None:
        """Work for ever."""
        while True:
            await self._work.wait()
            await self._send()

    async def flush(self) -> None:
        """Send what waits, once: for the end of the process."""
        if self._waiting:
            await self._send(tries=1)

    async def _send(self, tries: int | None = None) -> None:
        refunds = [self._waiting.popleft() for _ in range(min(len(self._waiting), 1000))]
        if not self._waiting:
            self._work.clear()
        if not refunds:
            return
        pause = self._pause
        left = self._tries if tries is None else tries
        while True:
            left -= 1
            try:
                await self._quota.refund(refunds)
            except SigngateError as error:
                if not left:
                    REFUNDS.labels("given_up").inc(len(refunds))
                    log.get("refunds").warning("refunds given up", reason=error.reason, count=len(refunds))
                    return
                REFUNDS.labels("retried").inc(len(refunds))
                await asyncio.sleep(pause)
                pause *= 2
            else:
                REFUNDS.labels("done").inc(len(refunds))
                return


def _caller(answer: validation_pb2.KeyValidation) -> Caller | Refusal:
    if answer.HasField("key"):
        key = answer.key
        return Caller(
            key.user_id,
            key.key_id,
            API_KEY,
            frozenset(key.scopes),
            key.daily_limit,
            key.per_minute,
            key.engine,
        )
    refusal = answer.refusal
    return Refusal(refusal_of(refusal), refusal.user_id, refusal.key_id)


def _write(message: pb.Charge, charge: Charge) -> None:
    caller = charge.caller
    message.charge_id = charge.charge_id
    message.user_id = caller.user_id
    message.pool = _pools[caller.pool]
    message.key_id = caller.key_id
    message.cost = charge.cost
    message.allow_partial = charge.partial
    message.key_daily_limit = caller.daily_limit
    message.key_per_minute = caller.per_minute


def _decision(decision: pb.Decision) -> Decision:
    limit = _limit(decision.state) if decision.HasField("state") else None
    wait = decision.retry_after
    return Decision(
        decision.granted,
        _kinds.get(decision.denied_by, ""),
        wait.seconds + wait.nanos / 1e9,
        limit,
        decision.charged_day,
        decision.undecided,
    )


def _limit(state: quota_pb2.LimitState) -> Limit:
    reset = state.reset_at
    return Limit(_kinds.get(state.kind, ""), state.limit, state.remaining, reset.seconds + reset.nanos / 1e9)
