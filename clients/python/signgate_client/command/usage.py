"""Quota and usage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import IO, Final

import click

from signgate.quota.v1 import quota_pb2
from signgate.usage.v1 import usage_pb2
from signgate_client import calls
from signgate_client.command.caller import Caller, pass_caller
from signgate_client.command.options import SPAN
from signgate_client.command.show import as_json, limits, moment, show, table

FORMATS: Final = {
    "csv": usage_pb2.EXPORT_FORMAT_CSV,
    "jsonl": usage_pb2.EXPORT_FORMAT_JSONL,
    "parquet": usage_pb2.EXPORT_FORMAT_PARQUET,
}
WIDTHS: Final = {"hour": usage_pb2.GRANULARITY_HOUR, "day": usage_pb2.GRANULARITY_DAY}
PARTS: Final = {
    "key": usage_pb2.DIMENSION_API_KEY,
    "result": usage_pb2.DIMENSION_RESULT,
    "engine": usage_pb2.DIMENSION_ENGINE,
}
last = click.option("--last", type=SPAN, help="How far back, such as 1h or 7d.")


@click.command()
@pass_caller
def quota(caller: Caller) -> None:
    """Show every limit, what is left of it, and when it is whole again."""
    with caller.signed_in() as client:
        answer: quota_pb2.GetQuotaResponse = client.quota()
    if caller.as_json:
        as_json(answer)
    else:
        show(limits(answer))


@click.group()
def usage() -> None:
    """See requests, statistics and exports. A key sees its own requests, a login the whole account's."""


@usage.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many.")
@click.option("--refused", is_flag=True, help="Only those that were not signed.")
@last
@pass_caller
def list_(caller: Caller, limit: int, *, refused: bool, last: timedelta | None) -> None:
    """List the latest requests, newest first."""
    where = _filter(last)
    if refused:
        where.success = False
    with caller.signed_in() as client:
        answer = client.call(
            client.usage.ListUsage, usage_pb2.ListUsageRequest(filter=where, page_size=limit)
        )
    if caller.as_json:
        as_json(answer)
        return
    rows = (
        (
            moment(record.created_at),
            record.room_url,
            "signed" if record.success else record.error_reason,
            str(record.response_time_ms),
            record.api_key_id or "login",
            record.engine,
        )
        for record in answer.records
    )
    show(table(("when", "room", "result", "ms", "by", "engine"), rows))


@usage.command()
@click.option("--per", type=click.Choice(list(WIDTHS)), help="A row for each hour or UTC day.")
@click.option("--by", type=click.Choice(list(PARTS)), help="A row for each key, result or engine.")
@last
@pass_caller
def stats(caller: Caller, per: str | None, by: str | None, last: timedelta | None) -> None:
    """Count requests and their latency: of the last 30 days, if nothing is said."""
    request = usage_pb2.GetUsageStatsRequest(filter=_filter(last))
    if per:
        request.granularity = WIDTHS[per]
    if by:
        request.group_by = PARTS[by]
    with caller.signed_in() as client:
        answer = client.call(client.usage.GetUsageStats, request)
    if caller.as_json:
        as_json(answer)
        return
    columns = ("from", by or "group", "requests", "signed", "refused", "p50 ms", "p95 ms", "p99 ms")
    show(table(columns, (_counts(one) for one in (*answer.buckets, answer.total))))


@usage.command()
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="csv", show_default=True)
@click.option("--output", "-o", type=click.File("wb"), default="-", help="A file; else standard output.")
@last
@pass_caller
def export(caller: Caller, form: str, output: IO[bytes], last: timedelta | None) -> None:
    """Write all requests to a file, oldest first."""
    request = usage_pb2.ExportUsageRequest(filter=_filter(last), format=FORMATS[form])
    with caller.signed_in() as client:
        for part in client.export_usage(request):
            output.write(part)


def _filter(last: timedelta | None) -> usage_pb2.UsageFilter:
    start = None if last is None else datetime.now(UTC) - last
    return usage_pb2.UsageFilter(start_time=calls.timestamp(start))


def _counts(one: usage_pb2.UsageStats) -> tuple[str, ...]:
    times = (one.p50_response_time_ms, one.p95_response_time_ms, one.p99_response_time_ms)
    numbers = (one.total_requests, one.successful_requests, one.failed_requests)
    return (
        moment(one.bucket) or "in all",
        one.group,
        *(str(number) for number in numbers),
        *(f"{time:.0f}" for time in times),
    )


COMMANDS = (quota, usage)
