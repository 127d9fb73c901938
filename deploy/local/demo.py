"""`make demo`: a real user's way through the product, shown step by step. Nothing in it is faked.

Everything goes through the edge, as a stranger's would; only the mail (caught, not sent) and the last
table (read from PostgreSQL itself) are looked at from the inside.
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import json
import os
import re
import secrets
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import asyncpg
from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from deploy.local import secrets as secrets_of
from deploy.local.layout import Layout
from deploy.local.tryit import next_steps
from signgate.signer.v1 import signer_pb2
from signgate_client import Signgate, SigngateError
from signgate_client.command import show

T = TypeVar("T")
ROOMS = (
    "https://www.tiktok.com/@signgate.demo/live",
    "@signgate.demo",
    "https://m.tiktok.com/share/live/7312345678901234567",
    "7312345678901234567",
    "https://webcast.tiktok.com/webcast/im/fetch/?aid=1988&room_id=7312345678901234567&cursor=",
)
BATCH = 20
WAIT = 60.0
"""Seconds for what comes by itself: long enough for a logger that was killed to be back."""
console = Console(highlight=False)


@dataclass(frozen=True)
class Account:
    """Who signs up. The address is new each time."""

    email: str
    password: str


@contextmanager
def step(number: int, title: str) -> Iterator[None]:
    """A heading before, the time it took after."""
    console.print(f"\n[bold cyan]{number}[/]  [bold]{title}[/]")
    started = time.monotonic()
    yield
    console.print(f"   [dim]{(time.monotonic() - started) * 1000:.0f} ms[/]")


def say(text: str) -> None:
    """One line, cut at the edge of the terminal."""
    console.print(f"   {text}", no_wrap=True, overflow="ellipsis")


def run(layout: Layout) -> int:
    """The whole way. Returns an exit status; what goes wrong is said, with where to look."""
    account = Account(f"demo-{secrets.token_hex(4)}@example.com", secrets.token_urlsafe(18))
    target = layout.edge_url.removeprefix("http://")
    try:
        key = walk(layout, target, account)
    except SigngateError as error:
        console.print(f"\n[red]The demo stopped:[/] {error.reason}: {error.message}")
        console.print(f"Logs: make logs, or {layout.logs}")
        return 1
    console.print()
    console.rule("What to try next", style="green", align="left")
    # Never folded: a command that is pasted must be one line.
    console.print(next_steps(layout.edge_url, key, account.email, account.password), soft_wrap=True)
    return 0


def walk(layout: Layout, target: str, account: Account) -> str:
    """From sign-up to the usage rows; returns the API key."""
    with Signgate(target) as anyone:
        with step(1, "Sign up"):
            anyone.sign_up(account.email, account.password)
            say(f"account for {account.email}; not confirmed yet")
        with step(2, "Confirm by mail"):
            code = eventually(lambda: mailed_code(layout, account.email), "the mail")
            session = anyone.confirm(account.email, code)
            say(f"the mail in {os.path.relpath(layout.mail)}/ carries the code {code}; it is spent now")
    with Signgate(target, access_token=session.access_token) as user:
        with step(3, "Sign while logged in, without a key: the free tier"):
            say(f"→ {brief(user.sign(ROOMS[0]))}")
        with step(4, "Create an API key"):
            created = user.create_key("demo")
            say(f"{created.key.masked}   scopes: {', '.join(created.key.scopes)}   (shown whole once)")
    with Signgate(target, api_key=created.secret) as caller:
        with step(5, "Sign room URLs with the key, over gRPC"):
            signed = [caller.sign(room) for room in ROOMS]
            for room, signature in zip(ROOMS, signed, strict=True):
                say(f"{short(room, 26):<27}→ {brief(signature)}")
            whole = signed[-1].signed_url
            console.print(f"\n   the last one, whole: [dim]{whole}[/]", soft_wrap=True)
        with step(6, f"A batch of {BATCH}, and one by REST"):
            batch = caller.sign_batch([f"@demo.{n:03d}" for n in range(BATCH)])
            say(f"{batch.signed} of {len(batch.results)} signed in one call")
            say(f"→ {rest_sign(layout.edge_url, created.secret)}")
        with step(7, "Verify: the signature holds, and not a character may change"):
            holds = caller.verify(whole)
            broken = caller.verify(whole.replace("room_id=7", "room_id=8"))
            say(f"as signed: {'holds' if holds.valid else holds.reason}    tampered with: {broken.reason}")
            if not holds.valid or broken.valid:
                raise SystemExit("The demo stopped: verification is wrong.")
        expected = 1 + len(ROOMS) + BATCH + 1
        with step(8, "Every signature is a row in PostgreSQL, and counted"):
            rows = eventually(lambda: usage_rows(layout, account.email, expected), f"{expected} usage rows")
            say(f"usage_logs: {expected} rows; quota_usage: {expected} today; the newest rows:")
            console.print(Padding(rows, (0, 3)))
        with step(9, "The quota"):
            console.print(Padding(show.limits(caller.quota()), (0, 3)))
    return created.secret


def eventually(look: Callable[[], T | None], what: str) -> T:
    """Look until there is something. Raises `SystemExit` saying what did not come."""
    give_up = time.monotonic() + WAIT
    while (found := look()) is None:
        if time.monotonic() > give_up:
            raise SystemExit(f"The demo stopped: waited {WAIT:.0f} s for {what}. See `make logs`.")
        time.sleep(0.05)
    return found


def mailed_code(layout: Layout, address: str) -> str | None:
    """The code of the mail caught for an address."""
    for path in sorted(layout.mail.glob("*.eml"), reverse=True):
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        if address not in str(message["To"]):
            continue
        body = message.get_body(preferencelist=("plain",))
        found = re.search(r"\b\d{6}\b", body.get_content() if body else "")
        if found:
            return found.group()
    return None


def rest_sign(edge_url: str, key: str) -> str:
    """One signature by plain HTTP and JSON."""
    request = urllib.request.Request(  # noqa: S310 - our own edge, over http
        f"{edge_url}/v1/sign",
        data=json.dumps({"roomUrl": "@by.rest"}).encode(),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310 - as above
        return str(json.load(response)["signature"]["signedUrl"])


def usage_rows(layout: Layout, address: str, expected: int) -> Table | None:
    """The account's newest rows from PostgreSQL itself, once all of them are there: all, and no more."""
    found = asyncio.run(read_usage(layout, address))
    rows, counted = found
    if len(rows) < expected or counted < expected:
        return None
    if (len(rows), counted) != (expected, expected):
        raise SystemExit(f"The demo stopped: {len(rows)} rows and {counted} counted instead of {expected}.")
    return show.table(
        ("created_at", "key", "room_url", "success", "ms"),
        (
            (
                f"{row['created_at']:%H:%M:%S.%f}"[:-3],
                "yes" if row["api_key_id"] else "no",
                short(row["room_url"], 44),
                "yes" if row["success"] else "no",
                str(row["response_time_ms"]),
            )
            for row in rows[:6]
        ),
    )


async def read_usage(layout: Layout, address: str) -> tuple[list[asyncpg.Record], int]:
    """Rows, newest first, and the count of the days."""
    connection = await asyncpg.connect(secrets_of.dsn(layout, secrets_of.SUPERUSER))
    try:
        rows = await connection.fetch(
            "SELECT l.* FROM usage_logs l JOIN users u ON u.id = l.user_id"
            " WHERE u.email = $1 ORDER BY l.created_at DESC, l.id DESC",
            address,
        )
        counted = await connection.fetchval(
            "SELECT coalesce(sum(q.request_count), 0) FROM quota_usage q JOIN users u ON u.id = q.user_id"
            " WHERE u.email = $1",
            address,
        )
    finally:
        await connection.close()
    return rows, int(counted)


def brief(signature: signer_pb2.Signature) -> str:
    """A signature in half a line: the canonical room, and how its signature begins."""
    room = signature.canonical_url.removeprefix("https://")
    return f"{short(room, 28)}?…sg_sig={signature.tokens['sg_sig'][:8]}…"


def short(text: str, width: int = 96) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


if __name__ == "__main__":
    sys.exit(run(Layout.from_environment()))
