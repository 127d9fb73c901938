"""One SignStream call: three coroutines, reading, signing and writing, with bounds between them.

    client → inbox → lists through the line → outbox → client

One list of a stream is on its way, and the next one waits in the line for it: so nobody rests while the
other works. What was read and not yet handed in waits in the inbox: at most `READ_AHEAD` requests; then
nothing is read until there is room, and HTTP/2's flow control holds the client back. Room is counted in
bytes as well. The credential is validated before the first message is awaited, and again with every batch, so
a revoked key ends the stream; `streams` ends idle ones. When the server stops, a stream first answers all
requests that were read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from grpc.aio import ServicerContext

from servicekit.batching import Closed
from servicekit.errors import PermissionDenied, SigngateError, Unauthenticated
from services.signer import messages
from services.signer.jobs import Identity, Job
from services.signer.service import Metadata, SignerService
from services.signer.streams import Streams
from signgate.signer.v1 import signer_pb2 as pb

READ_AHEAD: Final = 512
LIST: Final = 128
"""The most that one stream has in one list, so that it leaves room for others."""
READ_AHEAD_BYTES: Final = 256 * 1024
"""Of requests that are read and not handed in, and of those in one list: checked after each request."""
_lists_in_line: Final = 2
_lists_unwritten: Final = 2

Context = ServicerContext[Any, Any]
Answering = asyncio.Task[list[pb.SignStreamResponse]]


class SignStream:
    """One call. `run` returns when the client has ended its side and has all answers."""

    def __init__(
        self,
        service: SignerService,
        streams: Streams,
        writer: messages.Writer,
        context: Context,
        deadline: float | None,
    ) -> None:
        self._service = service
        self._streams = streams
        self._writer = writer
        self._context = context
        self._deadline = deadline
        self._metadata: Metadata = context.invocation_metadata()  # type: ignore[assignment]
        self._inbox: deque[tuple[pb.SignStreamRequest, int]] = deque()
        self._inbox_bytes = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False
        self._stopping = False
        self._outbox: asyncio.Queue[Answering | None] = asyncio.Queue(_lists_unwritten)
        self._lists: set[Answering] = set()
        self._turn = asyncio.Semaphore(_lists_in_line)
        self._reader: asyncio.Task[None] | None = None
        self._ended_by: asyncio.Future[SigngateError] | None = None
        self._owner = ""
        self.progress = 0
        self.writing = False

    @property
    def busy(self) -> bool:
        """See `streams.Stream`."""
        return bool(self._inbox or self._lists or self.writing or not self._outbox.empty())

    async def run(self) -> None:
        """Serve the call. Raises the error that the stream ends with, if any."""
        # A bad credential ends it, and one too many is refused, before anything is read.
        identity = await self.identify()
        caller = await self._streams.admit(identity)
        self._owner = caller.user_id
        with self._streams.opened(self, identity, caller):
            # Tells the client, and the edge, that the stream is accepted.
            await self._context.send_initial_metadata(())
            await self._until_ended()
        if self._stopping:
            raise Closed(retry_after=0.2)

    async def identify(self) -> Identity:
        """See `streams.Stream`."""
        return await self._service.identify(self._metadata)

    def end(self, error: SigngateError) -> None:
        """See `streams.Stream`."""
        if self._ended_by is not None and not self._ended_by.done():
            self._ended_by.set_result(error)

    async def _until_ended(self) -> None:
        loop = asyncio.get_running_loop()
        ended = self._ended_by = loop.create_future()
        serving = loop.create_task(self._serve(), name="stream-serve")
        try:
            await asyncio.wait((serving, ended), return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                raise ended.result()
            serving.result()
        finally:
            serving.cancel()
            await asyncio.wait((serving,))

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        reader = self._reader = loop.create_task(self._read(), name="stream-read")
        signer = loop.create_task(self._sign(), name="stream-sign")
        try:
            write: Callable[[Any], Awaitable[None]] = self._context.write
            while (answering := await self._outbox.get()) is not None:
                answers = await answering
                self.writing = True
                for answer in answers:
                    await write(answer)
                    self.progress += 1
                self.writing = False
        finally:
            for task in (reader, signer, *self._lists):
                task.cancel()
            await asyncio.wait((reader, signer, *self._lists))
        # A message that was refused as it was read ends the stream once what came before it is answered.
        if not reader.cancelled() and isinstance(wrong := reader.exception(), SigngateError):
            raise wrong

    def stop(self) -> None:
        """Read no more; answer what was read, then end with `Closed`."""
        self._stopping = True
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self) -> None:
        inbox = self._inbox
        try:
            while True:
                request: Any = await self._context.read()
                if request is grpc.aio.EOF:
                    return
                self.progress += 1
                size = request.ByteSize()
                self._inbox_bytes += size
                inbox.append((request, size))
                self._arrived.set()
                while len(inbox) >= READ_AHEAD or self._inbox_bytes >= READ_AHEAD_BYTES:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._ended = True
            self._arrived.set()

    async def _sign(self) -> None:
        """Hand in list after list: the next one waits in the line while the one before it is on its way."""
        inbox, loop = self._inbox, asyncio.get_running_loop()
        while True:
            while not inbox:
                if self._ended:
                    await self._outbox.put(None)
                    return
                self._arrived.clear()
                await self._arrived.wait()
            await self._turn.acquire()
            requests = self._taken()
            self._room.set()
            answering = loop.create_task(self._answers(requests), name="stream-list")
            self._lists.add(answering)
            answering.add_done_callback(self._ended_list)
            await self._outbox.put(answering)

    def _taken(self) -> list[pb.SignStreamRequest]:
        """The next list of the inbox."""
        requests: list[pb.SignStreamRequest] = []
        size = 0
        while self._inbox and len(requests) < LIST and size < READ_AHEAD_BYTES:
            request, its_size = self._inbox.popleft()
            requests.append(request)
            size += its_size
        self._inbox_bytes -= size
        return requests

    def _ended_list(self, answering: Answering) -> None:
        self._lists.discard(answering)
        self._turn.release()
        if not answering.cancelled():
            answering.exception()  # so that nobody misses it where an earlier list's has ended the stream

    async def _answers(self, requests: list[pb.SignStreamRequest]) -> list[pb.SignStreamResponse]:
        """The answers to a list. Raises when the credential no longer holds."""
        service = self._service
        identity = await self.identify()
        jobs = [
            service.job(identity, (messages.wish(request.request),), self._deadline) for request in requests
        ]
        found = await service.sign_many(jobs, self._owner)
        return [
            self._answer(request.tag, job, result)
            for request, job, result in zip(requests, jobs, found, strict=True)
        ]

    def _answer(self, tag: int, job: Job, result: Job | Exception) -> pb.SignStreamResponse:
        if isinstance(result, (Unauthenticated, PermissionDenied)):
            raise result
        whole = None
        if isinstance(result, SigngateError):
            whole = result
        elif isinstance(result, Exception):
            raise result
        answer = pb.SignStreamResponse(tag=tag)
        self._writer.result(job.parts[0], answer.result, whole)
        if job.limit is not None:
            messages.write_limit(job.limit, answer.quota)
        return answer
