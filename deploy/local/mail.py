"""The mail catcher: takes every message by SMTP and keeps it as a file; nothing is ever sent on.

A message becomes `<time>-<recipient>.eml`, one file for each recipient, written whole before it gets that
name, so that whoever watches the folder never reads half a message. The time is UTC to the microsecond, so
names sort by arrival.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
from datetime import UTC, datetime
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

MAX_BYTES = 10 * 1024 * 1024


class Catcher:
    """aiosmtpd's handler."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep the message, then say so: an accepted message is on disk."""
        content = envelope.original_content or b""
        for recipient in envelope.rcpt_tos:
            when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
            name = f"{when}-{re.sub(r'[^A-Za-z0-9@._+-]', '_', recipient)[:128]}.eml"
            partial = self._folder / f".{name}.partial"
            partial.write_bytes(content)
            partial.rename(self._folder / name)
        return "250 OK"


async def serve(host: str, port: int, folder: Path) -> None:
    """Catch mail until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    catcher = Catcher(folder)
    server = await loop.create_server(
        lambda: SMTP(catcher, data_size_limit=MAX_BYTES, enable_SMTPUTF8=True, loop=loop), host, port
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with server:
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(arguments.host, arguments.port, arguments.folder))


if __name__ == "__main__":
    main()
