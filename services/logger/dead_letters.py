"""Entries of the usage stream that were set aside: look at them, replay them, or drop them.

    python -m services.logger.dead_letters list              all of them, with their reasons
    python -m services.logger.dead_letters show ID...        what is in them
    python -m services.logger.dead_letters replay ID...      back into their streams (--all: every one)
    python -m services.logger.dead_letters drop ID...        for good, without rows (--all: every one)

A replayed entry goes to its stream's end and is taken like any other; if it is refused again, it is set
aside again. Events count once, however often they are replayed: dying in between loses nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from redis.asyncio import Redis, RedisCluster

from servicekit.config import load
from servicekit.redis import open_redis
from services.logger.config import LoggerSettings
from services.logger.domain import DeadLetter
from services.logger.stream import DEAD, FIELD, text
from signgate.usage.v1 import event_pb2

PAGE = 100


class DeadLetters:
    """The stream `usage:dead`. Errors are the driver's own."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis: Any = redis

    async def all(self) -> AsyncIterator[DeadLetter]:
        """Oldest first."""
        start = "-"
        while entries := await self._redis.xrange(DEAD, min=start, count=PAGE):
            for entry_id, fields in entries:
                yield _letter(text(entry_id), fields)
            start = f"({text(entries[-1][0])}"

    async def get(self, letter_id: str) -> DeadLetter | None:
        """One, or `None` when there is none of this id."""
        found = await self._redis.xrange(DEAD, min=letter_id, max=letter_id)
        return _letter(text(found[0][0]), found[0][1]) if found else None

    async def replay(self, letter: DeadLetter) -> None:
        """Into its stream, then out of here."""
        await self._redis.xadd(letter.stream, {FIELD: letter.payload})
        await self.drop(letter)

    async def drop(self, letter: DeadLetter) -> None:
        """Out of here."""
        await self._redis.xdel(DEAD, letter.id)


def describe(letter: DeadLetter) -> str:
    """What is in it, as JSON; or its bytes, when it holds no events."""
    try:
        return json_format.MessageToJson(event_pb2.UsageEvents.FromString(letter.payload), indent=2)
    except (DecodeError, ValueError):
        return f"{len(letter.payload)} bytes that hold no events: {letter.payload[:64].hex(' ')}"


def _letter(letter_id: str, fields: dict[bytes, bytes]) -> DeadLetter:
    return DeadLetter(
        id=letter_id,
        stream=text(fields.get(b"stream", b"")),
        entry_id=text(fields.get(b"id", b"")),
        reason=text(fields.get(b"reason", b"")),
        payload=fields.get(FIELD, b""),
        at=datetime.fromtimestamp(int(letter_id.split("-", maxsplit=1)[0]) / 1000, UTC),
    )


async def run(letters: DeadLetters, command: str, ids: Sequence[str]) -> int:
    """Carry out one command; returns the exit status: 1 when an id is unknown."""
    count = unknown = 0
    async for letter in _chosen(letters, ids):
        if isinstance(letter, str):
            unknown += 1
            sys.stderr.write(f"{letter}: there is no dead letter of this id\n")
            continue
        count += 1
        sys.stdout.write(
            f"{letter.id}  {letter.at:%Y-%m-%d %H:%M:%S}"
            f"  {letter.stream} {letter.entry_id}  {letter.reason}\n"
        )
        if command == "show":
            sys.stdout.write(describe(letter) + "\n")
        elif command == "replay":
            await letters.replay(letter)
        elif command == "drop":
            await letters.drop(letter)
    done = {"replay": "replayed", "drop": "dropped"}.get(command, "set aside")
    sys.stdout.write(f"{count} {done}\n")
    return 1 if unknown else 0


async def _chosen(letters: DeadLetters, ids: Sequence[str]) -> AsyncIterator[DeadLetter | str]:
    if not ids:
        async for letter in letters.all():
            yield letter
    for one in ids:
        yield await letters.get(one) or one


async def _main(command: str, ids: Sequence[str]) -> int:
    settings = load(LoggerSettings)
    async with open_redis(settings.redis_address(), timeout=5.0, name="dead-letters") as redis:
        return await run(DeadLetters(redis), command, ids)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m services.logger.dead_letters",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=("list", "show", "replay", "drop"))
    parser.add_argument("ids", nargs="*", metavar="ID")
    parser.add_argument("--all", action="store_true", help="every one of them")
    arguments = parser.parse_args()
    if arguments.command != "list" and not arguments.ids and not arguments.all:
        parser.error(f"{arguments.command} which? Name ids, as `list` tells them, or say --all")
    return asyncio.run(_main(arguments.command, [] if arguments.all else arguments.ids))


if __name__ == "__main__":
    raise SystemExit(main())
