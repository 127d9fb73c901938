"""What the owners of keys are mailed, by the auth service, behind the answers of the calls that did it.

A notice waits here in memory. It is lost, and counted, when too many wait, of all owners or of one, when auth
stays away for all tries, and when this process ends first: it is a help for an owner who looks at it, not a
record. The record is the key's history.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from servicekit import log
from servicekit.clock import Clock
from servicekit.errors import DeadlineExceeded, SigngateError, Unavailable
from servicekit.inside import Inside
from servicekit.rpc import create_channel
from servicekit.runner import Runtime
from services.keys.domain import Key
from services.keys.metrics import NOTICES
from services.keys.ports import KeyChange, NoNotices
from signgate.auth.v1 import notices_pb2 as pb
from signgate.auth.v1 import notices_pb2_grpc

ROOM: Final = 1000
ROOM_EACH: Final = 20
"""Of one owner: one account's events do not take the room of another's notices."""
TRIES: Final = 4
_timeout: Final = 2.0
_kinds: Final[Mapping[KeyChange, pb.KeyNoticeKind.ValueType]] = {
    "created": pb.KEY_NOTICE_KIND_CREATED,
    "rotated": pb.KEY_NOTICE_KIND_ROTATED,
    "revoked": pb.KEY_NOTICE_KIND_REVOKED,
}
_log = log.get("notices")


class MailedNotices:
    """A bounded line of notices, and the task that sends them one after the other."""

    def __init__(
        self, channel: grpc.aio.Channel, clock: Clock, *, room: int = ROOM, pause: float = 0.5
    ) -> None:
        self._stub = notices_pb2_grpc.NoticeServiceStub(channel)
        self._clock, self._room, self._pause = clock, room, pause
        self._waiting: deque[pb.SendKeyNoticeRequest] = deque()
        self._owners: Counter[str] = Counter()
        self._work = asyncio.Event()

    def key_changed(self, kind: KeyChange, user_id: UUID, keys: Sequence[Key], client_ip: str) -> None:
        """Have the owner told that these keys were created, rotated or revoked. Returns at once."""
        if not keys:
            return
        owner = str(user_id)
        if len(self._waiting) >= self._room or self._owners[owner] >= ROOM_EACH:
            NOTICES.labels("lost").inc()
            return
        one = keys[0] if len(keys) == 1 else None
        self._waiting.append(
            pb.SendKeyNoticeRequest(
                user_id=owner,
                kind=_kinds[kind],
                key_name=one.name if one else "",
                masked=one.masked if one else "",
                client_ip=client_ip,
                at=_stamp(self._clock.now()),
                count=len(keys),
            )
        )
        self._owners[owner] += 1
        self._work.set()

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._work.wait()
            if self._waiting:
                await self._send(self._waiting[0], TRIES)
                self._taken()
            else:
                self._work.clear()

    async def flush(self) -> None:
        """Send what waits, each once, until one fails: for the end of the process."""
        while self._waiting:
            if not await self._send(self._taken(), 1):
                break
        NOTICES.labels("lost").inc(len(self._waiting))
        self._waiting.clear()
        self._owners.clear()

    def _taken(self) -> pb.SendKeyNoticeRequest:
        """The first that waits, which waits no more."""
        notice = self._waiting.popleft()
        self._owners[notice.user_id] -= 1
        if not self._owners[notice.user_id]:
            del self._owners[notice.user_id]
        return notice

    async def _send(self, notice: pb.SendKeyNoticeRequest, tries: int) -> bool:
        pause = self._pause
        for left in reversed(range(tries)):
            try:
                await self._stub.SendKeyNotice(notice, timeout=_timeout)
            except (Unavailable, DeadlineExceeded) as error:
                if left:
                    await asyncio.sleep(pause)
                    pause *= 2
                    continue
                NOTICES.labels("lost").inc()
                _log.warning("a notice was lost", reason=error.reason, cause=error.__cause__)
                return False
            except SigngateError as error:  # too many already, or the account has gone
                NOTICES.labels("refused").inc()
                _log.info("a notice was refused", reason=error.reason)
            except Exception:  # noqa: BLE001  # one notice must not stop the others
                NOTICES.labels("lost").inc()
                _log.exception("a notice failed")
            else:
                NOTICES.labels("sent").inc()
            return True
        return False


async def open_notices(
    runtime: Runtime, inside: Inside, address: str | None, clock: Clock
) -> MailedNotices | NoNotices:
    """Notices by the auth service at that address, with their task; none without an address."""
    if not address:
        return NoNotices()
    channel = await runtime.enter(create_channel(address, timeout=_timeout, peer=inside.peer("auth")))
    notices = MailedNotices(channel, clock)
    runtime.stack.push_async_callback(notices.flush)
    runtime.background("notices", notices.run())
    return notices


def _stamp(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found
