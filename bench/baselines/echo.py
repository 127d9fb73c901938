"""`echo`: a grpc.aio server that answers `Sign` with a constant: the limit of any unary RPC here.

It reads the request and serialises the answer of a real signature, as every handler must.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

from grpc.aio import ServicerContext

from bench.baselines.serving import new_loop, serve
from signgate.common.v1 import quota_pb2
from signgate.signer.v1 import signer_pb2 as pb

_id: Final = "0199f2a0-7b1c-7d3e-8f40-1a2b3c4d5e6f"
_sig: Final = "m" * 86
_exp: Final = "1800000000"


def answer() -> pb.SignResponse:
    """As long as a native signature of a user's page."""
    response = pb.SignResponse(request_id=_id)
    signature = response.signature
    signature.canonical_url = "https://www.tiktok.com/@some.streamer/live"
    signature.signed_url = (
        f"{signature.canonical_url}?sg_v=1&sg_id={_id}&sg_exp={_exp}&sg_kid=0123456789abcdef&sg_sig={_sig}"
    )
    signature.room_kind = pb.ROOM_KIND_USERNAME
    signature.username = "some.streamer"
    signature.signing_key_id = "0123456789abcdef"
    signature.algorithm = pb.ALGORITHM_ED25519
    signature.engine.name, signature.engine.version = "native", "signed-url-v1"
    signature.engine.since.seconds = int(_exp)
    signature.user_agent = "Mozilla/5.0"
    signature.expires_at.seconds = int(_exp)
    for name, value in (("v", "1"), ("id", _id), ("exp", _exp), ("kid", "0123456789abcdef"), ("sig", _sig)):
        signature.tokens[f"sg_{name}"] = value
    response.quota.kind = quota_pb2.LIMIT_KIND_USER_DAY
    response.quota.limit = response.quota.remaining = 10**12
    response.quota.reset_at.seconds = int(_exp)
    return response


_constant: Final = answer()


async def sign(_request: pb.SignRequest, _context: ServicerContext[Any, Any]) -> pb.SignResponse:
    return _constant


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(serve(sign, int(sys.argv[1])))
