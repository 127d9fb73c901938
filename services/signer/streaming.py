"""One SignStream call: three coroutines, reading, signing and writing, with bounds between them.

    client → inbox → lists through the line → outbox → client

What was read and not yet signed waits in the inbox: at most `READ_AHEAD` requests; then nothing is
read until there is room, and HTTP/2's flow control holds the client back. The credential is looked at
again with every list, so a revoked key ends the stream. A stream that ends by the server's stopping
answers all that was read first.
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
from services.signer.jobs import Job
from services.signer.service import Metadata, SignerService
from signgate.signer.v1 import signer_pb2 as pb

READ_AHEAD: Final = 256
LIST: Final = 64
"""The most that one stream has in one list, so that it leaves room for others."""
_lists_unwritten: Final = 2

Context = ServicerContext[Any, Any]


class SignStream:
    """One call. `run` returns when the client has ended its side and has all answers."""

    def __init__(
        self, service: SignerService, writer: messages.Writer, context: Context, deadline: float | None
    ) -> None:
        self._service = service
        self._writer = writer
        self._context = context
        self._deadline = deadline
        self._metadata: Metadata = context.invocation_metadata()  # type: ignore[assignment]
        self._inbox: deque[pb.SignStreamRequest] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._ended = False
        self._stopping = False
        self._outbox: asyncio.Queue[list[pb.SignStreamResponse] | SigngateError | None] = asyncio.Queue(
            _lists_unwritten
        )
        self._reader: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve the call. Raises the error that the stream ends with, if any."""
        await self._service.identify(self._metadata)  # a bad credential ends it before anything is read
        loop = asyncio.get_running_loop()
        reader = self._reader = loop.create_task(self._read(), name="stream-read")
        signer = loop.create_task(self._sign(), name="stream-sign")
        try:
            write: Callable[[Any], Awaitable[None]] = self._context.write
            while (answers := await self._outbox.get()) is not None:
                if isinstance(answers, SigngateError):
                    raise answers
                for answer in answers:
                    await write(answer)
        finally:
            reader.cancel()
            signer.cancel()
            await asyncio.wait((reader, signer))
        if self._stopping:
            raise Closed(retry_after=0.2)

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
                inbox.append(request)
                self._arrived.set()
                while len(inbox) >= READ_AHEAD:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._ended = True
            self._arrived.set()

    async def _sign(self) -> None:
        inbox = self._inbox
        try:
            while True:
                while not inbox:
                    if self._ended:
                        await self._outbox.put(None)
                        return
                    self._arrived.clear()
                    await self._arrived.wait()
                requests = [inbox.popleft() for _ in range(min(len(inbox), LIST))]
                self._room.set()
                await self._outbox.put(await self._answers(requests))
        except SigngateError as error:
            await self._outbox.put(error)

    async def _answers(self, requests: list[pb.SignStreamRequest]) -> list[pb.SignStreamResponse]:
        """The answers to a list. Raises when the credential no longer holds."""
        service = self._service
        identity = await service.identify(self._metadata)
        jobs = [
            service.job(identity, (messages.wish(request.request),), self._deadline) for request in requests
        ]
        found = await service.sign_many(jobs)
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
