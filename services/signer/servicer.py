"""gRPC in front of `SignerService`: one method an RPC, protobuf in and out, no rules."""

from __future__ import annotations

import math
from typing import Any

from grpc.aio import ServicerContext

from servicekit.clock import Clock
from servicekit.context import CallContext, current
from servicekit.errors import InvalidArgument
from services.signer import messages
from services.signer.jobs import Limit
from services.signer.service import MAX_BATCH, SignerService
from services.signer.streaming import SignStream
from services.signer.streams import Streams
from signgate.signer.v1 import signer_pb2 as pb
from signgate.signer.v1 import signer_pb2_grpc

Context = ServicerContext[Any, Any]


class SignerServicer(signer_pb2_grpc.SignerServiceServicer):
    """See protos/signgate/signer/v1/signer.proto, which is the manual."""

    def __init__(self, service: SignerService, streams: Streams, clock: Clock) -> None:
        self._service = service
        self._streams = streams
        self._clock = clock
        self._writer = messages.Writer()

    async def Sign(self, request: pb.SignRequest, context: Context) -> pb.SignResponse:
        service = self._service
        here = _here()
        identity = await service.identify(here.metadata)
        job = service.job(identity, (messages.wish(request),), here.deadline)
        request_id = job.parts[0].request_id
        header = _request_id_header(here, request_id)
        try:
            part = await service.sign(job)
        except Exception:
            context.set_trailing_metadata((header,))
            raise
        answer = pb.SignResponse(request_id=request_id)
        self._writer.signature(part, answer.signature)
        self._tell_limit(job.limit, answer, header, context)
        return answer

    async def SignBatch(self, request: pb.SignBatchRequest, context: Context) -> pb.SignBatchResponse:
        service = self._service
        here = _here()
        identity = await service.identify(here.metadata)
        count = len(request.requests)
        if not 1 <= count <= MAX_BATCH:
            raise InvalidArgument.field("requests", f"1 to {MAX_BATCH} are signed at once")
        wishes = [messages.wish(one) for one in request.requests]
        job = service.job(identity, wishes, here.deadline, partial=True)
        header = _request_id_header(here, job.charge_id)
        try:
            await service.sign_batch(job)
        except Exception:
            context.set_trailing_metadata((header,))
            raise
        answer = pb.SignBatchResponse(signed=sum(part.signed is not None for part in job.parts))
        for part in job.parts:
            self._writer.result(part, answer.results.add())
        self._tell_limit(job.limit, answer, header, context)
        return answer

    async def SignStream(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]  # writes to the context
        await SignStream(self._service, self._streams, self._writer, context, _here().deadline).run()

    async def VerifySignature(
        self, request: pb.VerifySignatureRequest, context: Context
    ) -> pb.VerifySignatureResponse:
        return messages.verdict(self._service.verify(request.signed_url))

    async def ListEngines(self, request: pb.ListEnginesRequest, context: Context) -> pb.ListEnginesResponse:
        return pb.ListEnginesResponse(engines=[self._writer.listing(e) for e in self._service.engines()])

    async def ListSigningKeys(
        self, request: pb.ListSigningKeysRequest, context: Context
    ) -> pb.ListSigningKeysResponse:
        return messages.published(self._service.published_keys())

    def _tell_limit(
        self,
        limit: Limit | None,
        answer: pb.SignResponse | pb.SignBatchResponse,
        header: tuple[str, str],
        context: Context,
    ) -> None:
        """Write the limit into the answer, and into the trailing metadata beside the request id."""
        if limit is None:
            context.set_trailing_metadata((header,))
            return
        messages.write_limit(limit, answer.quota)
        reset = math.ceil(limit.reset_at)
        context.set_trailing_metadata(
            (
                header,
                ("ratelimit-limit", str(limit.limit)),
                ("ratelimit-remaining", str(limit.remaining)),
                ("ratelimit-reset", str(max(reset - int(self._clock.time()), 0))),
                ("x-ratelimit-reset", str(reset)),
            )
        )


def _here() -> CallContext:
    here = current()
    if here is None:
        raise RuntimeError("served outside a call")
    return here


def _request_id_header(here: CallContext, request_id: str) -> tuple[str, str]:
    """The caller's own id when it sent one, else the id of the usage row."""
    here.adopt(request_id)
    return ("x-request-id", here.request_id)
