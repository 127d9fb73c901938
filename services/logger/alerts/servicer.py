"""protobuf ↔ alerts, one method an RPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from servicekit import context
from services.logger.alerts.model import Alert, Wishes
from services.logger.alerts.service import AlertService
from signgate.common.v1 import quota_pb2
from signgate.usage.v1 import alerts_pb2 as pb
from signgate.usage.v1 import alerts_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]

POOLS: Final = {"free": quota_pb2.POOL_FREE, "api_key": quota_pb2.POOL_API_KEY}
STATES: Final = {
    "off": pb.DELIVERY_OFF,
    "pending": pb.DELIVERY_PENDING,
    "sent": pb.DELIVERY_SENT,
    "failed": pb.DELIVERY_FAILED,
}


class AlertServicer(alerts_pb2_grpc.AlertServiceServicer):
    """`signgate.usage.v1.AlertService`. The interceptor has authenticated the caller."""

    def __init__(self, service: AlertService) -> None:
        self._service = service

    async def GetAlertSettings(
        self, request: pb.GetAlertSettingsRequest, context_: Context
    ) -> pb.GetAlertSettingsResponse:
        wishes = await self._service.wishes(context.principal())
        return pb.GetAlertSettingsResponse(mail=wishes.mail, webhook_url=wishes.webhook_url)

    async def UpdateAlertSettings(
        self, request: pb.UpdateAlertSettingsRequest, context_: Context
    ) -> pb.UpdateAlertSettingsResponse:
        wishes = Wishes(request.mail, request.webhook_url)
        secret = await self._service.wish(context.principal(), wishes, rotate_secret=request.rotate_secret)
        return pb.UpdateAlertSettingsResponse(
            mail=wishes.mail, webhook_url=wishes.webhook_url, webhook_secret=secret
        )

    async def ListAlerts(self, request: pb.ListAlertsRequest, context_: Context) -> pb.ListAlertsResponse:
        found = await self._service.latest(context.principal())
        return pb.ListAlertsResponse(alerts=[_alert(one) for one in found])


def _alert(one: Alert) -> pb.Alert:
    created = Timestamp()
    created.FromDatetime(one.created_at)
    return pb.Alert(
        id=str(one.id),
        pool=POOLS.get(one.pool, quota_pb2.POOL_UNSPECIFIED),
        date=one.date.isoformat(),
        threshold_percent=one.threshold,
        used=one.used,
        daily_limit=one.daily_limit,
        created_at=created,
        mail=STATES[one.mail],
        webhook=STATES[one.webhook],
    )
