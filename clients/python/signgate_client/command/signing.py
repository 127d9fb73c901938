"""Signing and verifying."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Final

import click

from signgate.signer.v1 import signer_pb2
from signgate_client.command.caller import Caller, pass_caller
from signgate_client.command.options import SPAN
from signgate_client.command.show import as_json, as_line, facts, moment, say, show, table

BATCH: Final = 100


@click.command()
@click.argument("rooms", nargs=-1, metavar="[ROOM]...")
@click.option("--engine", default="", help="The engine that signs; else the key's or the deployment's.")
@click.option("--ttl", type=SPAN, help="How long the signatures hold, such as 90s or 10m.")
@pass_caller
def sign(caller: Caller, rooms: Sequence[str], engine: str, ttl: timedelta | None) -> None:
    """Sign room URLs: LIVE pages, @names or room ids.

    Prints a signed URL a line, in the order of the rooms. Without ROOM they are read from standard input, a
    line each. What can't be signed is told on standard error, and makes the exit status 1.
    """
    named: Iterable[str] = rooms or (line.strip() for line in sys.stdin)
    refused = 0
    with caller.signed_in() as client:
        for chunk in batches(room for room in named if room):
            results = client.sign_batch(chunk, engine=engine, ttl=ttl).results
            for room, result in zip(chunk, results, strict=True):
                refused += _tell(caller, room, result)
    if refused:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("url")
@pass_caller
def verify(caller: Caller, url: str) -> None:
    """Tell whether a signed URL holds now. Needs no account; the exit status is 1 when it does not."""
    with caller.anyone() as client:
        answer = client.verify(url)
    if caller.as_json:
        as_json(answer)
    else:
        show(
            facts(
                [
                    ("holds", "yes" if answer.valid else f"no: {answer.message} ({answer.reason})"),
                    ("room", answer.canonical_url),
                    ("until", moment(answer.expires_at)),
                    ("key", answer.signing_key_id),
                ]
            )
        )
    if not answer.valid:
        raise click.exceptions.Exit(1)


@click.command()
@pass_caller
def engines(caller: Caller) -> None:
    """List what signs here."""
    with caller.anyone() as client:
        answer = client.call(client.signer.ListEngines, signer_pb2.ListEnginesRequest())
    if caller.as_json:
        as_json(answer)
        return
    rows = (
        (
            one.info.name + (" (default)" if one.default else ""),
            one.info.version,
            "yes" if one.ready else f"no: {one.not_ready_reason}",
            moment(one.canary_at),
        )
        for one in answer.engines
    )
    show(table(("engine", "version", "ready", "checked"), rows))


def batches(rooms: Iterable[str]) -> Iterator[list[str]]:
    """As many at once as one call takes."""
    left = iter(rooms)
    while chunk := list(itertools.islice(left, BATCH)):
        yield chunk


def _tell(caller: Caller, room: str, result: signer_pb2.SignResult) -> bool:
    """Print one result; whether it was refused."""
    refused = result.WhichOneof("result") == "error"
    if caller.as_json:
        as_line(result, room=room)
    elif refused:
        say(f"{room}: {result.error.message} ({result.error.reason})")
    else:
        click.echo(result.signature.signed_url)
    return refused


COMMANDS = (sign, verify, engines)
