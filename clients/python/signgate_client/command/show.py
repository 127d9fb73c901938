"""What people see. Results go to standard output; what is only said goes to standard error."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import IO, Any, Final

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table
from rich.text import Text

from signgate.common.v1 import quota_pb2
from signgate.quota.v1 import quota_pb2 as quotas_pb2
from signgate_client.errors import SigngateError

WIDE: Final = 10_000
QUOTA_COLUMNS: Final = ("pool", "limit", "allowed", "left", "whole again")


class Refused(click.ClickException):
    """A call that failed: what happened, when to come back, what to quote."""

    def __init__(self, error: SigngateError) -> None:
        super().__init__(error.message)
        self.error = error

    def show(self, file: IO[Any] | None = None) -> None:
        say(f"Error: {self.error.message} ({self.error.reason})")
        if self.error.retry_after is not None:
            say(f"Come back in {self.error.retry_after:.0f} s.")
        if self.error.request_id:
            say(f"Request {self.error.request_id}")


class Commands(click.Group):
    """A group whose commands may raise `SigngateError`."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SigngateError as error:
            if error.reason == "UNAVAILABLE":  # no service said it: nobody was there
                raise click.ClickException(f"{ctx.obj.server} can't be reached.") from error
            raise Refused(error) from error


def say(text: str) -> None:
    """To the person, not into a pipe."""
    click.echo(text, err=True)


def as_json(message: Message) -> None:
    """A message as REST would answer it."""
    click.echo(json.dumps(MessageToDict(message), ensure_ascii=False, indent=2))


def as_line(message: Message, **more: str) -> None:
    """A message as one line of JSON, after members of its own."""
    click.echo(json.dumps(more | MessageToDict(message), ensure_ascii=False))


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], title: str | None = None) -> Table:
    """Rows under their columns. Values stand as they are: brackets in them are no markup."""
    grid = Table(*columns, box=None, pad_edge=False, title=title, title_justify="left")
    for row in rows:
        grid.add_row(*(Text(value) for value in row))
    return grid


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and values; those without a value are left out."""
    grid = Table.grid(padding=(0, 2))
    for name, value in pairs:
        if value:
            grid.add_row(Text(name, "dim"), Text(value))
    return grid


def show(what: Table) -> None:
    """Fitted to the terminal; whole where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    console.print(what)


def moment(at: Timestamp) -> str:
    """In the reader's own zone, to the second; "" for an absent one."""
    return f"{datetime.fromtimestamp(at.seconds).astimezone():%Y-%m-%d %H:%M:%S}" if at.seconds else ""


def limits(quota: quotas_pb2.GetQuotaResponse) -> Table:
    """A row a limit."""
    return table(
        QUOTA_COLUMNS,
        (
            (
                quota_pb2.Pool.Name(pool.pool).removeprefix("POOL_").lower(),
                quota_pb2.LimitKind.Name(limit.kind).removeprefix("LIMIT_KIND_").lower().replace("_", " "),
                str(limit.limit),
                str(limit.remaining),
                moment(limit.reset_at),
            )
            for pool in quota.pools
            for limit in pool.limits
        ),
    )
