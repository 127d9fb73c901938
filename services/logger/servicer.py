"""protobuf ↔ domain, one method an RPC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit import context
from servicekit.errors import InvalidArgument
from servicekit.rpc.policy import policies
from servicekit.rpc.server import Authenticator
from services.logger import export
from services.logger.domain import Stats, UsageFilter, UsageRecord
from services.logger.places import ExportBounds, Places
from services.logger.recheck import Recheck
from services.logger.service import Bucket, Group, UsageService
from signgate.usage.v1 import usage_pb2, usage_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

    Context = grpc.aio.ServicerContext[Any, Any]

_export_policy = policies(usage_pb2.DESCRIPTOR.services_by_name["UsageService"].full_name)["ExportUsage"]

BUCKETS: dict[int, Bucket | None] = {
    usage_pb2.GRANULARITY_UNSPECIFIED: None,
    usage_pb2.GRANULARITY_HOUR: "hour",
    usage_pb2.GRANULARITY_DAY: "day",
}
GROUPS: dict[int, Group | None] = {
    usage_pb2.DIMENSION_UNSPECIFIED: None,
    usage_pb2.DIMENSION_API_KEY: "api_key",
    usage_pb2.DIMENSION_RESULT: "result",
    usage_pb2.DIMENSION_ENGINE: "engine",
}
FORMATS: dict[int, export.Format] = {
    usage_pb2.EXPORT_FORMAT_UNSPECIFIED: "csv",
    usage_pb2.EXPORT_FORMAT_CSV: "csv",
    usage_pb2.EXPORT_FORMAT_JSONL: "jsonl",
    usage_pb2.EXPORT_FORMAT_PARQUET: "parquet",
}


class UsageServicer(usage_pb2_grpc.UsageServiceServicer):
    """`signgate.usage.v1.UsageService`. The interceptor has authenticated the caller."""

    def __init__(
        self,
        service: UsageService,
        bounds: ExportBounds | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        self._service = service
        self._authenticator = authenticator
        self._bounds = bounds or ExportBounds()
        self.places = Places(self._bounds)

    async def ListUsage(
        self, request: usage_pb2.ListUsageRequest, context_: Context
    ) -> usage_pb2.ListUsageResponse:
        rows, token = await self._service.list_usage(
            context.principal(), where(request.filter), request.page_size, request.page_token
        )
        return usage_pb2.ListUsageResponse(records=[record(row) for row in rows], next_page_token=token)

    async def GetUsageStats(
        self, request: usage_pb2.GetUsageStatsRequest, context_: Context
    ) -> usage_pb2.GetUsageStatsResponse:
        total, buckets = await self._service.stats(
            context.principal(),
            where(request.filter),
            known(BUCKETS, request.granularity, "granularity"),
            known(GROUPS, request.group_by, "group_by"),
        )
        return usage_pb2.GetUsageStatsResponse(total=stats(total), buckets=[stats(b) for b in buckets])

    async def ExportUsage(  # type: ignore[override]  # written to the context, so that each write can be bounded
        self, request: usage_pb2.ExportUsageRequest, context_: Context
    ) -> None:
        form = known(FORMATS, request.format, "format")
        media, caller, chosen = export.MEDIA_TYPES[form], context.principal(), where(request.filter)
        chunks = self._service.export(caller, chosen, export.CHUNKS[form])

        credential = Recheck(self._authenticator, _export_policy)

        async def take(piece: bytes) -> None:
            await credential.holds()
            await context_.write(HttpBody(content_type=media, data=piece))

        with self.places.taken(caller):
            data = export.write(form, chunks)
            await export.sent(data, take, seconds=self._bounds.seconds, stall=self._bounds.stall)

    async def GetSystemStats(
        self, request: usage_pb2.GetSystemStatsRequest, context_: Context
    ) -> usage_pb2.GetSystemStatsResponse:
        found = await self._service.system_stats(
            moment(request, "start_time"),
            moment(request, "end_time"),
        )
        return usage_pb2.GetSystemStatsResponse(
            total=stats(found.total),
            total_users=found.total_users,
            active_users=found.active_users,
            active_api_keys=found.active_api_keys,
            users_by_tier=found.users_by_tier,
        )


def where(message: usage_pb2.UsageFilter) -> UsageFilter:
    """The domain's filter. Raises `InvalidArgument` naming the member that is wrong."""
    return UsageFilter(
        start=moment(message, "start_time", "filter."),
        end=moment(message, "end_time", "filter."),
        api_key_id=uuid_of(message.api_key_id) if message.api_key_id else None,
        success=message.success if message.HasField("success") else None,
        error_reason=storable(message.error_reason, "error_reason") or None,
        engine=storable(message.engine, "engine") or None,
    )


def storable(text: str, name: str) -> str:
    """The text, unless PostgreSQL can't hold it. Raises `InvalidArgument`."""
    if "\0" in text:
        raise InvalidArgument.field(f"filter.{name}", "must not contain U+0000")
    return text


def moment(message: Any, name: str, prefix: str = "") -> datetime | None:
    """A Timestamp member as a UTC datetime; absent is `None`."""
    if not message.HasField(name):
        return None
    try:
        value: datetime = getattr(message, name).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument.field(
            f"{prefix}{name}", "is not a moment between the years 1 and 9999"
        ) from error
    return value


def uuid_of(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError as error:
        raise InvalidArgument.field("filter.api_key_id", "must be a UUID") from error


def known(names: dict[int, Any], value: int, name: str) -> Any:
    if value not in names:
        raise InvalidArgument.field(name, "is not one of the values that this server knows")
    return names[value]


def timestamp(value: datetime) -> Timestamp:
    # Of a moment in UTC. Several times as fast as FromDatetime, which a year of days asks 365 times.
    return Timestamp(seconds=int(value.timestamp()), nanos=value.microsecond * 1000)


def record(row: UsageRecord) -> usage_pb2.UsageRecord:
    return usage_pb2.UsageRecord(
        id=str(row.id),
        api_key_id=str(row.api_key_id) if row.api_key_id else "",
        room_url=row.room_url,
        success=row.success,
        response_time_ms=row.response_time_ms,
        error_reason=row.error_reason or "",
        created_at=timestamp(row.created_at),
        engine=row.engine or "",
        charged=row.charged,
    )


def stats(found: Stats) -> usage_pb2.UsageStats:
    return usage_pb2.UsageStats(
        bucket=timestamp(found.bucket) if found.bucket else None,
        group=found.group,
        total_requests=found.total,
        successful_requests=found.successful,
        failed_requests=found.failed,
        average_response_time_ms=found.average_ms,
        p50_response_time_ms=found.p50_ms,
        p95_response_time_ms=found.p95_ms,
        p99_response_time_ms=found.p99_ms,
    )
