"""`signgate.auth.v1.NoticeService`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from services.auth.errors import ValidationFailed
from services.auth.service.notices import KeyEvent, KeyNotice, Notices
from services.auth.servicer import convert
from signgate.auth.v1 import notices_pb2 as pb
from signgate.auth.v1 import notices_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]

KINDS: Final[Mapping[int, KeyEvent]] = {
    pb.KEY_NOTICE_KIND_CREATED: "key_created",
    pb.KEY_NOTICE_KIND_ROTATED: "key_rotated",
    pb.KEY_NOTICE_KIND_REVOKED: "key_revoked",
}


class NoticeServicer(notices_pb2_grpc.NoticeServiceServicer):
    """Notices for the keys service. Who calls was looked at before a method runs."""

    def __init__(self, notices: Notices) -> None:
        self._notices = notices

    async def SendKeyNotice(
        self, request: pb.SendKeyNoticeRequest, context_: Context
    ) -> pb.SendKeyNoticeResponse:
        if request.kind not in KINDS:
            raise ValidationFailed("kind", "say what happened")
        if not request.count:
            raise ValidationFailed("count", "say how many keys")
        if not request.HasField("at"):
            raise ValidationFailed("at", "say when it happened")
        await self._notices.key_changed(
            KeyNotice(
                user_id=convert.uuid(request.user_id, "user_id"),
                kind=KINDS[request.kind],
                name=request.key_name,
                masked=request.masked,
                ip=request.client_ip,
                at=request.at.ToDatetime(UTC),
                count=request.count,
            )
        )
        return pb.SendKeyNoticeResponse()
