"""The quota service, as the logger calls it."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from services.logger.domain import Charge, PoolCount
from signgate.common.v1 import quota_pb2
from signgate.quota.v1 import enforcement_pb2, enforcement_pb2_grpc

LIST = 5_000
"""Charges a call: the contract takes 10,000."""


class QuotaClient:
    """Tells quota which charges are final. Raises `SigngateError` as the channel does."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = enforcement_pb2_grpc.QuotaEnforcementServiceStub(channel)

    async def settle(self, charges: Sequence[Charge]) -> None:
        """Make charges final; idempotent."""
        for start in range(0, len(charges), LIST):
            refs = [
                enforcement_pb2.ChargeRef(charge_id=charge_id, user_id=user_id, units=units)
                for charge_id, user_id, units in charges[start : start + LIST]
            ]
            await self._stub.Settle(enforcement_pb2.SettleRequest(charges=refs))

    async def counters(self, user_id: str) -> tuple[PoolCount, PoolCount]:
        """A user's counts of today, of the pools `free` and `api_key`."""
        return (
            await self._count(user_id, quota_pb2.POOL_FREE),
            await self._count(user_id, quota_pb2.POOL_API_KEY),
        )

    async def _count(self, user_id: str, pool: quota_pb2.Pool.ValueType) -> PoolCount:
        request = enforcement_pb2.InspectRequest(user_id=user_id, pool=pool, count_open=True)
        found = await self._stub.Inspect(request)
        return PoolCount(found.used_today, found.open_today)

    async def release(self, watermark_ms: int) -> int:
        """Let quota take back what was abandoned before the watermark; returns how many."""
        watermark = Timestamp(seconds=watermark_ms // 1000, nanos=watermark_ms % 1000 * 1_000_000)
        done = await self._stub.Settle(enforcement_pb2.SettleRequest(watermark=watermark))
        return int(done.released)
