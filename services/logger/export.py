"""Usage as a file: CSV, JSON Lines or Parquet, made chunk by chunk while it is sent.

`write(format, chunks)` yields the file's bytes in order, `sent` hands them over. Memory holds one chunk and
what the receiver's connection buffers, whatever the length (of Parquet also its footer: a few kilobytes for
each 2,000 rows). The next chunk is read when the last one was taken.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

from typing_extensions import Buffer

from services.logger.domain import UsageRecord
from services.logger.errors import ExportStalled, ExportTimeout

Format = Literal["csv", "jsonl", "parquet"]
COLUMNS = (
    "id", "created_at", "api_key_id", "room_url", "success", "response_time_ms", "error_reason",
    "engine", "charged",
)  # fmt: skip
MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
CHUNKS: dict[Format, int] = {"csv": 500, "jsonl": 500, "parquet": 2_000}
"""Rows that are read and written at a time: some milliseconds, in which the process does nothing else.
Parquet's are its row groups."""
PIECE = 256 * 1024
"""Bytes of one message: a chunk of long URLs may be more than a message holds."""
# A spreadsheet takes a cell that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write(form: Format, chunks: AsyncIterator[list[UsageRecord]]) -> AsyncIterator[bytes]:
    """The file's bytes. Nothing is read ahead of what the receiver has taken."""
    if form == "parquet":
        return _parquet(chunks)
    return _text(chunks, _csv if form == "csv" else _jsonl, header=form == "csv")


async def sent(
    data: AsyncIterator[bytes], take: Callable[[bytes], Awaitable[None]], *, seconds: float, stall: float
) -> None:
    """Hand over all of a file, piece by piece; `take` returns once there is room for more.

    Raises `ExportStalled` when one piece is not taken within `stall` seconds, `ExportTimeout` when all of
    it takes more than `seconds`.
    """
    try:
        async with asyncio.timeout(seconds):
            async for part in data:
                for start in range(0, len(part), PIECE):
                    await _taken(take, part[start : start + PIECE], stall)
    except TimeoutError:
        raise ExportTimeout from None


async def _taken(take: Callable[[bytes], Awaitable[None]], piece: bytes, stall: float) -> None:
    try:
        async with asyncio.timeout(stall):
            await take(piece)
    except TimeoutError:
        raise ExportStalled from None


async def _text(
    chunks: AsyncIterator[list[UsageRecord]], lines: Callable[[list[UsageRecord]], str], *, header: bool
) -> AsyncIterator[bytes]:
    if header:
        yield (",".join(COLUMNS) + "\r\n").encode()
    async for chunk in chunks:
        data = lines(chunk).encode()
        chunk.clear()  # for as long as the receiver takes
        yield data


def _csv(chunk: list[UsageRecord]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerows(map(_cells, chunk))
    return out.getvalue()


def _jsonl(chunk: list[UsageRecord]) -> str:
    return "".join(json.dumps(_plain(record), ensure_ascii=False) + "\n" for record in chunk)


def _cells(record: UsageRecord) -> list[object]:
    plain = _plain(record)
    return [_cell(plain[name]) for name in COLUMNS]


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return "" if value is None else value


def _plain(record: UsageRecord) -> dict[str, object]:
    return {
        "id": str(record.id),
        "created_at": record.created_at.isoformat(),
        "api_key_id": str(record.api_key_id) if record.api_key_id else None,
        "room_url": record.room_url,
        "success": record.success,
        "response_time_ms": record.response_time_ms,
        "error_reason": record.error_reason,
        "engine": record.engine,
        "charged": record.charged,
    }


async def _parquet(chunks: AsyncIterator[list[UsageRecord]]) -> AsyncIterator[bytes]:
    import pyarrow as pa  # noqa: PLC0415 - 60 MB of memory, for those who export Parquet
    import pyarrow.parquet as pq  # noqa: PLC0415 - likewise

    schema = pa.schema(
        [
            ("id", pa.string()),
            ("created_at", pa.timestamp("us", tz="UTC")),
            ("api_key_id", pa.string()),
            ("room_url", pa.string()),
            ("success", pa.bool_()),
            ("response_time_ms", pa.int32()),
            ("error_reason", pa.string()),
            ("engine", pa.string()),
            ("charged", pa.int32()),
        ]
    )
    sink = Spool()
    with pq.ParquetWriter(sink, schema, compression="snappy") as writer:
        async for chunk in chunks:
            rows = [{**_plain(record), "created_at": record.created_at} for record in chunk]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()  # for as long as the receiver takes
            chunk.clear()
            yield sink.take()
    yield sink.take()


class Spool(io.RawIOBase):
    """A file that is only ever written: what was written leaves by `take`, offsets count on.

    Parquet's footer names absolute offsets, so `tell` must count what was taken as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._offset = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        part = bytes(data)
        self._parts.append(part)
        self._offset += len(part)
        return len(part)

    def tell(self) -> int:
        return self._offset

    def take(self) -> bytes:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
