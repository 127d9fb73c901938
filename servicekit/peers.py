"""Clients of peers that more than one service calls, over the generated stubs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import grpc

from servicekit import apikey
from servicekit.addresses import bucket
from servicekit.authn import Credential
from servicekit.batching import Batcher
from servicekit.context import current
from servicekit.errors import SigngateError, Unauthenticated, Unavailable
from servicekit.principal import Principal
from signgate.keys.v1 import validation_pb2 as pb
from signgate.keys.v1 import validation_pb2_grpc

MAX_CREDENTIALS: Final = 1000
"""The most that one ValidateKeys takes."""


class KeyServiceClient:
    """Asks the keys service; see `servicekit.authn.KeyValidator`. The channel stays its owner's.

    Concurrent lookups of single keys go as one batch. So all callers of one service, those with invalid keys
    included, cost the keys service one call for each batch, and cannot crowd out signing. At most `waiting`
    lookups wait, with a share for each client address.
    """

    def __init__(self, channel: grpc.aio.Channel, *, timeout: float = 2.0, waiting: int = 2048) -> None:
        self._stub = validation_pb2_grpc.KeyValidationServiceStub(channel)
        self._timeout = timeout
        self._singles: Batcher[Credential, pb.KeyValidation] = Batcher(
            self.validate_many, name="validate", max_batch=min(256, waiting), max_waiting=waiting
        )

    async def validate_many(self, credentials: Sequence[Credential]) -> Sequence[pb.KeyValidation]:
        """The service's answers as they are, in order: for callers that need a key's own limits.

        At most `MAX_CREDENTIALS`. Raises `Unavailable` when nothing is known of any of them.
        """
        request = pb.ValidateKeysRequest(
            credentials=[pb.KeyCredential(secret=c.secret, client_ip=c.client_ip) for c in credentials]
        )
        response: pb.ValidateKeysResponse = await self._stub.ValidateKeys(request, timeout=self._timeout)
        return response.results

    async def validate(self, credential: Credential) -> Principal:
        """The principal of one key. Raises `Unauthenticated` with the service's reason.

        What is no key by its shape or checksum is refused here and asked of nobody.
        """
        apikey.check(credential.secret)
        here = current()
        deadline = None if here is None else here.deadline
        owner = bucket(credential.client_ip) or "unknown"
        return principal_of(await self._singles.submit(credential, deadline, owner))


def principal_of(answer: pb.KeyValidation) -> Principal:
    """The principal of a key that holds. Raises `Unauthenticated` for one that does not, or `Unavailable`."""
    if not answer.HasField("key"):
        raise refusal_of(answer.refusal)
    key = answer.key
    return Principal(
        user_id=UUID(key.user_id),
        scopes=frozenset(key.scopes),
        tier=key.tier,
        api_key_id=UUID(key.key_id),
    )


def refusal_of(refusal: pb.KeyRefusal) -> SigngateError:
    """The error that a refusal stands for: `Unavailable` when nothing is known of the key now."""
    if refusal.reason == "KEYS_UNAVAILABLE":
        return Unavailable(refusal.message or None, reason=refusal.reason, retry_after=1.0)
    return Unauthenticated(refusal.message or None, reason=refusal.reason or None)
