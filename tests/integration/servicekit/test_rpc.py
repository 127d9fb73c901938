"""Real grpc.aio, in process: what a caller and a servicer may rely on."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import grpc
import pytest
from google.api import httpbody_pb2
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import REGISTRY

from servicekit import apikey, context, log
from servicekit.authn import CredentialAuthenticator
from servicekit.clock import SystemEntropy
from servicekit.errors import (
    DeadlineExceeded,
    FieldViolation,
    Internal,
    InvalidArgument,
    PermissionDenied,
    QuotaFacts,
    ResourceExhausted,
    SigngateError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from servicekit.peers import KeyServiceClient
from servicekit.principal import Principal
from servicekit.rpc import create_channel, create_server, set_rate_limit
from servicekit.testing.identity import shared
from servicekit.testing.network import free_port, listening, serving
from servicekit.testing.tokens import FakeKeys, FakeSessions, TokenMint
from signgate.keys.v1 import validation_pb2 as keys
from signgate.keys.v1 import validation_pb2_grpc as keys_grpc
from signgate.signer.v1 import signer_pb2 as signer
from signgate.signer.v1 import signer_pb2_grpc as signer_grpc
from signgate.usage.v1 import usage_pb2 as usage
from signgate.usage.v1 import usage_pb2_grpc as usage_grpc

USER, KEY_ID = uuid4(), uuid4()
NARROW = Principal(USER, api_key_id=uuid4(), scopes=frozenset({"quota:read"}))
KEY, OTHER = (apikey.mint("live", key_id, SystemEntropy()) for key_id in (KEY_ID, uuid4()))
GOOD = (("x-api-key", KEY),)
QUOTA = QuotaFacts("free/day", limit=100, remaining=0, reset_after=12.5, reset_at=1_800_000_000.0)
SIGN = "signgate.signer.v1.SignerService/Sign"


class Signer(signer_grpc.SignerServiceServicer):
    """Does what the room URL of the request says, and notes what came of it."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.seen: dict[str, Any] = {}
        self.started = asyncio.Event()

    async def Sign(self, request: Any, context_: Any) -> Any:
        self.seen = {"request_id": context.request_id(), "remaining": context.remaining()}
        self.seen["principal"] = getattr(context.current(), "principal", None)
        match request.room_url:
            case "quota":
                context_.set_trailing_metadata((("x-other", "1"), ("ratelimit-limit", "9")))
                raise ResourceExhausted("All used up.", reason="QUOTA", retry_after=12.5, quota=QUOTA)
            case "bug":
                raise RuntimeError("hunter2 sgk_live_secret")
            case "abort":
                await context_.abort(grpc.StatusCode.NOT_FOUND, "by hand")
            case "big":
                raise InvalidArgument(
                    reason="TOO_MUCH",
                    violations=[FieldViolation(f"items[{n}]", "x" * 100) for n in range(500)],
                )
            case "slow":
                try:
                    self.started.set()
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    self.ended.append("cancelled")
                    raise
            case "limits":
                set_rate_limit(context_, QUOTA)
        return signer.SignResponse()

    async def SignStream(self, requests: Any, context_: Any) -> AsyncIterator[Any]:
        try:
            async for request in requests:
                if request.request.room_url == "quota":
                    raise ResourceExhausted(reason="QUOTA", quota=QUOTA)
                if request.request.room_url == "bug":
                    raise RuntimeError("hunter2")
                yield signer.SignStreamResponse()
        finally:
            self.ended.append("closed")

    async def SignBatch(self, request: Any, context_: Any) -> Any:
        raise NotImplementedError

    async def VerifySignature(self, request: Any, context_: Any) -> Any:
        return signer.VerifySignatureResponse()

    async def ListEngines(self, request: Any, context_: Any) -> Any:
        return signer.ListEnginesResponse()

    async def ListSigningKeys(self, request: Any, context_: Any) -> Any:
        return signer.ListSigningKeysResponse()


class Keys(keys_grpc.KeyValidationServiceServicer):
    """One good key."""

    def __init__(self) -> None:
        self.request_id = ""
        self.remaining: float | None = None

    async def ValidateKeys(self, request: Any, context_: Any) -> Any:
        self.request_id, self.remaining = context.request_id(), context.remaining()
        response = keys.ValidateKeysResponse()
        for credential in request.credentials:
            answer = response.results.add()
            if credential.secret == KEY:
                answer.key.key_id, answer.key.user_id, answer.key.tier = str(KEY_ID), str(USER), "api_key"
                answer.key.scopes.append("sign")
            else:
                answer.refusal.reason, answer.refusal.message = "KEY_REVOKED", "This key was revoked."
        return response


def stream_request(room_url: str) -> Any:
    return signer.SignStreamRequest(request=signer.SignRequest(room_url=room_url))


@pytest.fixture
def servicer() -> Signer:
    return Signer()


@pytest.fixture
def mint() -> TokenMint:
    return TokenMint()


@pytest.fixture
async def stub(servicer: Signer, mint: TokenMint) -> AsyncIterator[Any]:
    known = {
        KEY: Principal(USER, api_key_id=KEY_ID, scopes=frozenset({"sign"})),
        "sgk_live_narrow": NARROW,
    }
    authenticator = CredentialAuthenticator(mint.verifier(), FakeSessions(), FakeKeys(known))
    add = signer_grpc.add_SignerServiceServicer_to_server
    async with serving((servicer, add), authenticator=authenticator) as channel:
        yield signer_grpc.SignerServiceStub(channel)


@pytest.fixture
async def channel(servicer: Signer, mint: TokenMint) -> AsyncIterator[Any]:
    known = {KEY: Principal(USER, api_key_id=KEY_ID, scopes=frozenset({"sign"}))}
    authenticator = CredentialAuthenticator(mint.verifier(), FakeSessions(), FakeKeys(known))
    add = signer_grpc.add_SignerServiceServicer_to_server
    async with serving((servicer, add), authenticator=authenticator) as found:
        yield found


async def drain(stream: Any, into: list[Any] | None = None) -> None:
    async for item in stream:
        if into is not None:
            into.append(item)


async def failure(call: Any) -> SigngateError:
    with pytest.raises(SigngateError) as caught:
        await call
    return caught.value


def sign(stub: Any, room_url: str = "", metadata: Any = GOOD, timeout: float | None = None) -> Any:
    return stub.Sign(signer.SignRequest(room_url=room_url), metadata=metadata, timeout=timeout)


class TestPolicy:
    async def test_a_key_with_the_scope_passes_and_the_servicer_knows_who(
        self, stub: Any, servicer: Signer
    ) -> None:
        await sign(stub)
        assert servicer.seen["principal"].api_key_id == KEY_ID

    async def test_a_login_passes(self, stub: Any, servicer: Signer, mint: TokenMint) -> None:
        await sign(stub, metadata=(("authorization", f"Bearer {mint.token(USER)}"),))
        assert servicer.seen["principal"].user_id == USER

    @pytest.mark.parametrize(
        ("metadata", "kind", "reason"),
        [
            ((), Unauthenticated, "CREDENTIAL_MISSING"),
            ((("x-api-key", "sgk_live_bad"),), Unauthenticated, "KEY_UNKNOWN"),
            ((("x-api-key", "sgk_live_narrow"),), PermissionDenied, "SCOPE_MISSING"),
            ((("authorization", "Basic dTpw"),), Unauthenticated, "CREDENTIAL_MALFORMED"),
        ],
    )
    async def test_others_never_reach_the_servicer(
        self, stub: Any, servicer: Signer, metadata: Any, kind: type[SigngateError], reason: str
    ) -> None:
        error = await failure(sign(stub, metadata=metadata))
        assert (type(error), error.reason) == (kind, reason)
        assert servicer.seen == {}

    async def test_the_state_of_the_limit_comes_with_a_good_answer(self, servicer: Signer) -> None:
        add = signer_grpc.add_SignerServiceServicer_to_server
        names = [SIGN, SIGN + "Batch", SIGN + "Stream"]
        async with (
            listening((servicer, add), deferred=names) as (_, port),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            call = sign(signer_grpc.SignerServiceStub(channel), "limits", ())
            await call
            assert dict(await call.trailing_metadata())["ratelimit-reset"] == "13"

    async def test_streams_are_guarded_alike(self, stub: Any, servicer: Signer) -> None:
        error = await failure(drain(stub.SignStream(iter([stream_request("")]))))
        assert isinstance(error, Unauthenticated)
        # The generator was never entered, so its `finally` did not run either.
        assert servicer.ended == []

    async def test_a_public_method_asks_for_nothing(self, stub: Any) -> None:
        await stub.ListEngines(signer.ListEnginesRequest())

    async def test_a_deferred_method_is_left_to_its_servicer(self, servicer: Signer) -> None:
        add = signer_grpc.add_SignerServiceServicer_to_server
        names = [SIGN, SIGN + "Batch", SIGN + "Stream"]
        async with serving((servicer, add), deferred=names) as channel:
            await signer_grpc.SignerServiceStub(channel).Sign(signer.SignRequest())
        assert servicer.seen["principal"] is None


class TestErrors:
    async def test_an_error_of_the_tree_arrives_whole(self, stub: Any) -> None:
        error = await failure(sign(stub, "quota"))
        assert isinstance(error, ResourceExhausted)
        assert (error.reason, error.message, error.retry_after) == ("QUOTA", "All used up.", 12.5)
        assert error.quota == QUOTA

    async def test_other_clients_get_standard_details_and_rate_limit_trailers(self, servicer: Signer) -> None:
        """As any gRPC client sees it that knows nothing of Signgate."""
        add = signer_grpc.add_SignerServiceServicer_to_server
        names = [SIGN, SIGN + "Batch", SIGN + "Stream"]
        async with (
            listening((servicer, add), deferred=names) as (_, port),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await sign(signer_grpc.SignerServiceStub(channel), "quota", (("x-request-id", "req-12345"),))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailing = dict(caught.value.trailing_metadata())
        assert trailing["ratelimit-limit"] == "100"
        assert trailing["ratelimit-remaining"] == "0"
        assert trailing["retry-after"] == "13"
        assert trailing["x-other"] == "1"
        status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
        info, who = details.ErrorInfo(), details.RequestInfo()
        assert status.details[0].Unpack(info)
        assert (info.domain, info.reason) == ("signgate", "QUOTA")
        assert status.details[-1].Unpack(who)
        assert who.request_id == "req-12345"

    async def test_a_bug_is_logged_whole_and_told_to_nobody(
        self, stub: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log.configure("t")
        try:
            error = await failure(sign(stub, "bug", (*GOOD, ("x-request-id", "req-12345"))))
        finally:
            logging.getLogger().handlers.clear()
        assert isinstance(error, Internal)
        assert "hunter2" not in repr(error) + repr(error.metadata)
        (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines() if "unexpected" in text]
        assert "RuntimeError: hunter2" in line["exception"]
        assert line["request_id"] == "req-12345"
        assert "sgk_live_secret" not in json.dumps(line)

    async def test_abort_by_hand_still_works(self, stub: Any) -> None:
        error = await failure(sign(stub, "abort"))
        assert error.status == "NOT_FOUND"

    async def test_many_violations_do_not_burst_the_trailer(self, stub: Any) -> None:
        """HTTP/2 peers drop a response whose headers are over 8 KiB, and the reason with them."""
        error = await failure(sign(stub, "big"))
        assert (type(error), error.reason) == (InvalidArgument, "TOO_MUCH")

    async def test_a_message_over_the_limit_is_refused(self, stub: Any) -> None:
        error = await failure(sign(stub, "x" * 5_000_000))
        assert isinstance(error, ResourceExhausted)

    @pytest.mark.parametrize("method", ["Sign", "SignBatch", "SignStream", "VerifySignature"])
    @pytest.mark.parametrize(
        ("raw", "reason"),
        [(b"\xff" * 20, "MESSAGE_MALFORMED"), (b"\x0a" * 2_000_000, "MESSAGE_TOO_LARGE")],
    )
    async def test_a_bad_message_is_the_caller_s_error_before_any_credential(
        self, channel: Any, method: str, raw: bytes, reason: str
    ) -> None:
        path = f"/signgate.signer.v1.SignerService/{method}"
        if method == "SignStream":
            metadata = GOOD  # a stream's caller is looked at as it opens
            call = drain(channel.stream_stream(path, bytes, bytes)(iter((raw,)), metadata=metadata))
        else:
            call = channel.unary_unary(path, bytes, bytes)(raw)
        error = await failure(call)
        assert (type(error), error.reason) == (InvalidArgument, reason)

    async def test_a_bound_is_held_before_any_credential(self, stub: Any) -> None:
        error = await failure(stub.SignBatch(signer.SignBatchRequest(requests=[signer.SignRequest()] * 101)))
        assert (error.reason, [v.field for v in error.violations]) == ("VALIDATION_FAILED", ["requests"])

    async def test_streams_end_with_the_same_errors(self, stub: Any, servicer: Signer) -> None:
        got: list[Any] = []
        requests = iter([stream_request("a"), stream_request("b"), stream_request("quota")])
        caught = await failure(drain(stub.SignStream(requests, metadata=GOOD), got))
        assert len(got) == 2
        assert isinstance(caught, ResourceExhausted)
        assert caught.quota == QUOTA
        hidden = await failure(drain(stub.SignStream(iter([stream_request("bug")]), metadata=GOOD)))
        assert isinstance(hidden, Internal)
        assert "hunter2" not in repr(hidden)

    async def test_what_a_server_stream_sent_before_it_failed_arrives(self) -> None:
        class Usage(usage_grpc.UsageServiceServicer):
            async def ExportUsage(self, request: Any, context_: Any) -> AsyncIterator[Any]:
                for number in range(3):
                    yield httpbody_pb2.HttpBody(data=bytes([number]))
                raise Unimplemented("No more.", reason="FORMAT")

        async def never(self: object, request: Any, context_: Any) -> None:
            raise AssertionError

        names = [n for n in vars(usage_grpc.UsageServiceServicer) if n[0].isupper() and n != "ExportUsage"]
        servicer = type("Complete", (Usage,), dict.fromkeys(names, never))()
        keys_ = FakeKeys({KEY: Principal(USER, api_key_id=KEY_ID)})
        add = usage_grpc.add_UsageServiceServicer_to_server
        async with serving(
            (servicer, add), authenticator=CredentialAuthenticator(None, None, keys_)
        ) as channel:
            stub = usage_grpc.UsageServiceStub(channel)
            got: list[Any] = []
            chunks = stub.ExportUsage(usage.ExportUsageRequest(), metadata=GOOD)
            assert isinstance(await failure(drain(chunks, got)), Unimplemented)
        assert [chunk.data for chunk in got] == [b"\0", b"\1", b"\2"]


class TestTime:
    async def test_a_passed_deadline_is_told_and_the_handler_cancelled(
        self, stub: Any, servicer: Signer
    ) -> None:
        assert isinstance(await failure(sign(stub, "slow", timeout=1.0)), DeadlineExceeded)
        async with asyncio.timeout(20):
            while not servicer.ended:
                await asyncio.sleep(0.02)
        assert servicer.ended == ["cancelled"]

    async def test_a_client_that_goes_away_cancels_the_handler_quietly(
        self, stub: Any, servicer: Signer, capsys: pytest.CaptureFixture[str]
    ) -> None:
        call = asyncio.create_task(sign(stub, "slow"))
        await servicer.started.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        for _ in range(500):
            if servicer.ended:
                break
            await asyncio.sleep(0.02)
        assert servicer.ended == ["cancelled"]
        assert capsys.readouterr().out == ""

    async def test_a_stream_that_is_left_early_is_closed_at_the_server(
        self, stub: Any, servicer: Signer
    ) -> None:
        forever = asyncio.Event()

        async def requests() -> AsyncIterator[Any]:
            yield stream_request("a")
            await forever.wait()

        responses = stub.SignStream(requests(), metadata=GOOD)
        async for _ in responses:
            break
        await responses.aclose()
        for _ in range(50):
            if servicer.ended:
                break
            await asyncio.sleep(0.02)
        assert servicer.ended == ["closed"]

    async def test_request_id_and_deadline_are_passed_on_to_peers(self) -> None:
        servicer = Keys()
        async with serving((servicer, keys_grpc.add_KeyValidationServiceServicer_to_server)) as channel:
            stub = keys_grpc.KeyValidationServiceStub(channel)
            context.enter(context.CallContext("request-1", time.monotonic() + 1.5))
            await stub.ValidateKeys(keys.ValidateKeysRequest())
            assert servicer.request_id == "request-1"
            assert servicer.remaining is not None
            assert servicer.remaining < 1.6
            context.enter(context.CallContext("request-1", time.monotonic() - 1))
            assert isinstance(await failure(stub.ValidateKeys(keys.ValidateKeysRequest())), DeadlineExceeded)

    async def test_a_peer_that_is_not_there_fails_fast_and_is_found_when_it_comes(self) -> None:
        port = free_port()
        channel = create_channel(f"127.0.0.1:{port}", peer=shared().peer("signer", "keys"))
        stub = keys_grpc.KeyValidationServiceStub(channel)
        error = await failure(stub.ValidateKeys(keys.ValidateKeysRequest(), timeout=30))
        assert isinstance(error, Unavailable)  # and not DeadlineExceeded
        assert error.reason == "PEER_UNAVAILABLE"
        assert "127.0.0.1" not in error.message
        add = keys_grpc.add_KeyValidationServiceServicer_to_server
        server = create_server(callers=shared().callers("keys"))
        server.add(Keys(), add)
        server.listen(f"127.0.0.1:{port}")
        await server.start()
        answered = False
        for _ in range(300):
            try:
                await stub.ValidateKeys(keys.ValidateKeysRequest(), timeout=10)
                answered = True
                break
            except Unavailable:
                await asyncio.sleep(0.05)
        assert answered
        await channel.close()
        await server.stop(0)


class TestStanding:
    async def test_reflection_lists_the_services(self) -> None:
        add = keys_grpc.add_KeyValidationServiceServicer_to_server
        async with (
            listening((Keys(), add)) as (_, port),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            untyped: Any = channel
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(untyped)
            request: Any = reflection_pb2.ServerReflectionRequest
            answers: Any = stub.ServerReflectionInfo(iter([request(list_services="")]))
            answer = await answers.read()
            names = [service.name for service in answer.list_services_response.service]
        assert "signgate.keys.v1.KeyValidationService" in names

    async def test_every_call_is_counted_by_its_outcome(self, stub: Any) -> None:
        def count(code: str) -> float:
            labels = {"rpc": SIGN, "code": code}
            return REGISTRY.get_sample_value("signgate_rpc_duration_seconds_count", labels) or 0.0

        before = {code: count(code) for code in ("OK", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAUTHENTICATED")}
        await sign(stub)
        await failure(sign(stub, "quota"))
        await failure(sign(stub, "bug"))
        await failure(sign(stub, metadata=()))

        def counted() -> dict[str, float]:
            return {code: count(code) - was for code, was in before.items()}

        for _ in range(100):  # a call is counted when it has been answered
            if sum(counted().values()) >= len(before):
                break
            await asyncio.sleep(0.02)
        assert counted() == dict.fromkeys(before, 1.0)

    async def test_calls_in_flight_may_end_within_the_grace(self, servicer: Signer) -> None:
        add = signer_grpc.add_SignerServiceServicer_to_server
        names = [SIGN, SIGN + "Batch", SIGN + "Stream"]
        async with listening((servicer, add), deferred=names) as (server, port):
            channel = create_channel(f"127.0.0.1:{port}")
            call = asyncio.create_task(sign(signer_grpc.SignerServiceStub(channel), "slow"))
            await servicer.started.wait()
            started = time.monotonic()
            await server.stop(0.3)
            assert 0.2 < time.monotonic() - started < 20  # the call would take 30
            with pytest.raises(SigngateError):
                await call
            await channel.close()


async def test_the_key_client_turns_answers_into_principals_and_refusals_into_reasons() -> None:
    async with serving((Keys(), keys_grpc.add_KeyValidationServiceServicer_to_server)) as channel:
        authenticator = CredentialAuthenticator(None, None, KeyServiceClient(channel))
        principal = await authenticator.authenticate(GOOD)
        assert principal == Principal(USER, api_key_id=KEY_ID, tier="api_key", scopes=frozenset({"sign"}))
        with pytest.raises(Unauthenticated) as caught:
            await authenticator.authenticate((("x-api-key", OTHER),))
        assert (caught.value.reason, caught.value.message) == ("KEY_REVOKED", "This key was revoked.")


async def test_what_is_no_key_is_refused_without_asking_the_key_service() -> None:
    """A wrong checksum, a wrong shape, a bearer of no known form: nobody is there to be asked."""
    channel = create_channel("127.0.0.1:1")
    authenticator = CredentialAuthenticator(None, None, KeyServiceClient(channel))
    mistyped = KEY[:40] + ("A" if KEY[40] != "A" else "B") + KEY[41:]
    for presented in (("x-api-key", mistyped), ("x-api-key", "sgk_live_"), ("authorization", "Bearer x")):
        with pytest.raises(Unauthenticated) as caught:
            await authenticator.authenticate((presented,))
        assert caught.value.reason == "KEY_MALFORMED"
    with pytest.raises(Unavailable):
        await authenticator.authenticate(GOOD)
    await channel.close()
