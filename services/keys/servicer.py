"""protobuf ↔ domain, one method an RPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from google.protobuf.message import Message

from servicekit import apikey
from servicekit.authn import Metadata, find_credential
from servicekit.clock import Clock
from servicekit.context import principal
from servicekit.errors import FieldViolation
from servicekit.rpc.policy import enforce, policies
from servicekit.rpc.server import Authenticator
from services.keys import messages
from services.keys.errors import DerivedToken, ValidationFailed
from services.keys.once import Repeatable
from services.keys.operators import KeyOperators
from services.keys.service import KeysService
from services.keys.validation import Validator
from signgate.keys.v1 import admin_pb2, admin_pb2_grpc, keys_pb2_grpc, validation_pb2, validation_pb2_grpc
from signgate.keys.v1 import keys_pb2 as pb

if TYPE_CHECKING:
    import grpc

    Context = grpc.aio.ServicerContext[Any, Any]

MAX_CREDENTIALS: Final = 1000
_contract: Final = pb.DESCRIPTOR.services_by_name["KeysService"].full_name
DEFERRED: Final = (f"{_contract}/RevokeSelf",)
"""Methods that authenticate by themselves; see `servicekit.rpc.create_server`."""
_policies: Final = policies(_contract)
IDEMPOTENCY_HEADER: Final = "idempotency-key"
IDEMPOTENCY_FIELD: Final = "idempotency_key"


class KeysServicer(keys_pb2_grpc.KeysServiceServicer):
    """`signgate.keys.v1.KeysService`. The interceptor has authenticated the caller, save for the methods in
    `DEFERRED`: `finders` authenticates the holder of a key that may be refused, who can only revoke it.
    """

    def __init__(self, service: KeysService, clock: Clock, finders: Authenticator) -> None:
        self._service = service
        self._clock = clock
        self._finders = finders

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> pb.CreateKeyResponse:
        made = await self._service.create(
            principal(), messages.draft(request), repeatable("CreateKey", request, context)
        )
        return pb.CreateKeyResponse(key=messages.key(made.key, self._clock.now()), secret=made.secret)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        keys, token = await self._service.list(
            principal(), messages.search(request), request.page_size, request.page_token
        )
        now = self._clock.now()
        return pb.ListKeysResponse(keys=[messages.key(key, now) for key in keys], next_page_token=token)

    async def GetKey(self, request: pb.GetKeyRequest, context: Context) -> pb.GetKeyResponse:
        key = await self._service.get(principal(), messages.key_id(request.key_id))
        return pb.GetKeyResponse(key=messages.key(key, self._clock.now()))

    async def UpdateKey(self, request: pb.UpdateKeyRequest, context: Context) -> pb.UpdateKeyResponse:
        key = await self._service.update(
            principal(), messages.key_id(request.key_id), messages.changes(request)
        )
        return pb.UpdateKeyResponse(key=messages.key(key, self._clock.now()))

    async def RotateKey(self, request: pb.RotateKeyRequest, context: Context) -> pb.RotateKeyResponse:
        grace = None
        if request.HasField("grace_period"):
            grace = messages.span("grace_period", request.grace_period)
        made, previous = await self._service.rotate(
            principal(), messages.key_id(request.key_id), grace, repeatable("RotateKey", request, context)
        )
        now = self._clock.now()
        return pb.RotateKeyResponse(
            key=messages.key(made.key, now), secret=made.secret, previous=messages.key(previous, now)
        )

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> pb.RevokeKeyResponse:
        key = await self._service.revoke(principal(), messages.key_id(request.key_id))
        return pb.RevokeKeyResponse(key=messages.key(key, self._clock.now()))

    async def RevokeAllKeys(
        self, request: pb.RevokeAllKeysRequest, context: Context
    ) -> pb.RevokeAllKeysResponse:
        but = messages.uuid("except_key_id", request.except_key_id) if request.except_key_id else None
        ended = [str(key_id) for key_id in await self._service.revoke_all(principal(), but)]
        return pb.RevokeAllKeysResponse(revoked_count=len(ended), key_ids=ended)

    async def RevokeSelf(self, request: pb.RevokeSelfRequest, context: Context) -> pb.RevokeSelfResponse:
        caller = await self._finders.authenticate(cast("Metadata", context.invocation_metadata() or ()))
        enforce(_policies["RevokeSelf"], caller)
        key = await self._service.revoke_self(caller)
        return pb.RevokeSelfResponse(key=messages.found_key(key, self._clock.now()))

    async def MintToken(self, request: pb.MintTokenRequest, context: Context) -> pb.MintTokenResponse:
        credential = find_credential(cast("Metadata", context.invocation_metadata() or ()))
        if credential is not None and apikey.is_token(credential.secret):
            raise DerivedToken
        ttl = messages.span("ttl", request.ttl) if request.HasField("ttl") else None
        token, expires_at, scopes = await self._service.mint_token(principal(), request.scopes, ttl)
        response = pb.MintTokenResponse(token=token, scopes=scopes)
        response.expires_at.FromDatetime(expires_at)
        return response

    async def ListKeyEvents(
        self, request: pb.ListKeyEventsRequest, context: Context
    ) -> pb.ListKeyEventsResponse:
        events, token = await self._service.events(
            principal(), messages.key_id(request.key_id), request.page_size, request.page_token
        )
        return pb.ListKeyEventsResponse(
            events=[messages.event(event) for event in events], next_page_token=token
        )


class KeysAdminServicer(admin_pb2_grpc.KeysAdminServiceServicer):
    """`signgate.keys.v1.KeysAdminService`. The interceptor has let the service role in."""

    def __init__(self, operators: KeyOperators, clock: Clock) -> None:
        self._operators = operators
        self._clock = clock

    async def ListUserKeys(
        self, request: admin_pb2.ListUserKeysRequest, context: Context
    ) -> admin_pb2.ListUserKeysResponse:
        keys, token = await self._operators.list(
            principal(),
            messages.uuid("user_id", request.user_id),
            messages.search(request),
            request.page_size,
            request.page_token,
        )
        now = self._clock.now()
        return admin_pb2.ListUserKeysResponse(
            keys=[messages.key(key, now) for key in keys], next_page_token=token
        )

    async def RevokeUserKey(
        self, request: admin_pb2.RevokeUserKeyRequest, context: Context
    ) -> admin_pb2.RevokeUserKeyResponse:
        key = await self._operators.revoke(
            principal(),
            messages.uuid("user_id", request.user_id),
            messages.key_id(request.key_id),
            request.reason,
        )
        return admin_pb2.RevokeUserKeyResponse(key=messages.key(key, self._clock.now()))

    async def RevokeUserKeys(
        self, request: admin_pb2.RevokeUserKeysRequest, context: Context
    ) -> admin_pb2.RevokeUserKeysResponse:
        user_id = messages.uuid("user_id", request.user_id)
        ended = [str(each) for each in await self._operators.revoke_all(principal(), user_id, request.reason)]
        return admin_pb2.RevokeUserKeysResponse(revoked_count=len(ended), key_ids=ended)


class KeyValidationServicer(validation_pb2_grpc.KeyValidationServiceServicer):
    """`signgate.keys.v1.KeyValidationService`, for Signgate's own services."""

    def __init__(self, validator: Validator) -> None:
        self._validator = validator
        self._messages = messages.ValidationMessages()

    async def ValidateKeys(
        self, request: validation_pb2.ValidateKeysRequest, context: Context
    ) -> validation_pb2.ValidateKeysResponse:
        if len(request.credentials) > MAX_CREDENTIALS:
            raise ValidationFailed([FieldViolation("credentials", f"at most {MAX_CREDENTIALS}")])
        answers = await self._validator.validate([(c.secret, c.client_ip) for c in request.credentials])
        return self._messages.response(answers)


def repeatable(method: str, request: Message, context: Context) -> Repeatable | None:
    """By which idempotency key a request may be repeated. Raises `ValidationFailed`."""
    metadata = cast("Metadata", context.invocation_metadata() or ())
    sent = [str(value) for name, value in metadata if name == IDEMPOTENCY_HEADER]
    plain = type(request)()
    plain.MergeFrom(request)
    named: str = getattr(plain, IDEMPOTENCY_FIELD)
    plain.ClearField(IDEMPOTENCY_FIELD)
    return Repeatable.of([named, *sent], method, plain.SerializeToString(deterministic=True))
