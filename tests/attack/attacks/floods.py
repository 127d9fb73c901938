"""Whole requests, many of them or large ones: what each costs must be the sender's to pay."""

from __future__ import annotations

import base64
import itertools
import json
import secrets
from typing import Final

from signgate.auth.v1 import auth_pb2
from signgate.signer.v1 import signer_pb2
from signgate.usage.v1 import usage_pb2
from tests.attack.attacks.base import SIGN, SIGN_STREAM, Attack, Attacker
from tests.attack.attacks.flood import Make, Request, flood, frame
from tests.attack.attacks.streams import made_up_key

_json: Final = ("content-type", "application/json")
_numbers = itertools.count()
BIG: Final = 1_000_000
"""Bytes, just below what the edge takes as a body."""


def _sign(key: str) -> Make:
    """A well-formed request by that kind of key: the customer's, the free account's, or one made up."""

    def make(attacker: Attacker) -> Request:
        presented = {"customer": attacker.thief.customer_key, "free": attacker.thief.key}.get(
            key
        ) or made_up_key()
        message = signer_pb2.SignRequest(
            room_url=f"https://www.tiktok.com/@flood.{next(_numbers) % 1000}/live"
        )
        return Request(attacker.call(SIGN, ("x-api-key", presented)), frame(message))

    return make


def _stream(attacker: Attacker) -> Request:
    message = signer_pb2.SignStreamRequest(request=signer_pb2.SignRequest(room_url="@flood"))
    return Request(attacker.call(SIGN_STREAM, ("x-api-key", made_up_key())), frame(message))


def _post(path: str, body: bytes, *more: tuple[str, str]) -> Make:
    def make(attacker: Attacker) -> Request:
        kind = more or (_json,)
        return Request(attacker.head("POST", path, *kind, ("content-length", str(len(body)))), body)

    return make


def _get(path: str, *more: tuple[str, str]) -> Make:
    return lambda attacker: Request(attacker.head("GET", path, *more))


def _sign_in(attacker: Attacker) -> Request:
    email = f"nobody-{next(_numbers) % 400}@attack.test"
    message = auth_pb2.SignInRequest(email=email, password=secrets.token_urlsafe(12))
    return Request(attacker.call("/signgate.auth.v1.AuthService/SignIn"), frame(message))


def _otp(attacker: Attacker) -> Request:
    message = auth_pb2.SendOtpRequest(email=f"nobody-{next(_numbers)}@attack.test", create_user=True)
    return Request(attacker.call("/signgate.auth.v1.AuthService/SendOtp"), frame(message))


def _token(attacker: Attacker) -> Request:
    """An access token whose key is not published."""
    parts = (
        {"alg": "ES256", "typ": "JWT", "kid": secrets.token_hex(8)},
        {"iss": f"http://{attacker.thief.host}:{attacker.thief.port}/auth/v1", "sub": "x", "exp": 2**33},
    )
    head = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    token = ".".join((*head, secrets.token_urlsafe(64)))
    return Request(attacker.head("GET", "/v1/usage", ("authorization", f"Bearer {token}")))


def _heavy_heads(attacker: Attacker) -> Request:
    """Ninety headers, all that the edge takes, with a made-up key."""
    more = [(f"x-{number}", "v" * 140) for number in range(90)]
    return Request(attacker.call(SIGN, ("x-api-key", made_up_key()), *more), frame(signer_pb2.SignRequest()))


def _crumbs(attacker: Attacker) -> Request:
    """A cookie in two thousand pieces, which HTTP/2 has joined."""
    return Request(attacker.head("GET", "/v1/engines", *[("cookie", "a=b")] * 2_000))


def _owned(path: str) -> Make:
    return lambda attacker: Request(
        attacker.head("GET", path, ("authorization", f"Bearer {attacker.thief.access_token}"))
    )


def _stats(attacker: Attacker) -> Request:
    message = usage_pb2.GetUsageStatsRequest(
        granularity=usage_pb2.GRANULARITY_HOUR, group_by=usage_pb2.DIMENSION_ENGINE
    )
    return Request(
        attacker.call("/signgate.usage.v1.UsageService/GetUsageStats", ("x-api-key", attacker.thief.key)),
        frame(message),
    )


def _long_verify(attacker: Attacker) -> Request:
    url = "https://webcast.tiktok.com/webcast/im/fetch/?" + "&".join(f"a{n}={n}" for n in range(80_000))
    message = signer_pb2.VerifySignatureRequest(signed_url=url)
    return Request(attacker.call("/signgate.signer.v1.SignerService/VerifySignature"), frame(message))


def _big_batch(attacker: Attacker) -> Request:
    wish = signer_pb2.SignRequest(room_url="https://www.tiktok.com/@" + "a." * 15_000)
    message = signer_pb2.SignBatchRequest(requests=[wish] * 100)
    path = "/signgate.signer.v1.SignerService/SignBatch"
    return Request(attacker.call(path, ("x-api-key", attacker.thief.key)), frame(message))


BODIES: Final = (
    b"[" * BIG,
    b'{"a":' * (BIG // 5),
    b'{"email":"' + b"\\u0041" * (BIG // 6 - 10) + b'"}',
    b'{"email":' + b"9" * BIG + b"}",
    b"{" + b",".join(b'"%d":0' % n for n in range(100_000)) + b"}",
    b'{"room_url":"https://www.tiktok.com/@' + b"a/" * (BIG // 2 - 30) + b'"}',
    b'{"requests":[' + b",".join([b'{"room_url":"@a"}'] * 50_000) + b"]}",
    b"\xff" * BIG,
)
"""Valid and invalid JSON, deep, wide and long."""
FORM: Final = b"&".join(b"a%d=" % n for n in range(90_000))
PATHS: Final = (
    "/auth/v1/token?grant_type=password",
    "/v1/sign",
    "/v1/sign:batch",
    "/auth/v1/otp",
    "/v1/verify",
)

ATTACKS = (
    Attack(
        "Sign with made-up keys, 200 a second",
        "S4",
        flood([_sign("made up")], per_second=200),
        twin=flood([_sign("customer")], per_second=200),
        quick=True,
    ),
    Attack(
        "SignStream with made-up keys, 100 a second",
        "S4",
        flood([_stream], per_second=100),
        twin=flood([_sign("customer")], per_second=100),
    ),
    Attack(
        "a free account signs 200 times a second",
        "floods",
        flood([_sign("free")], per_second=200, connections=8),
        twin=flood([_sign("customer")], per_second=200, connections=8),
    ),
    Attack(
        "sign-ins of made-up accounts, 40 a second from 4 addresses",
        "floods",
        flood([_sign_in], per_second=40, sources=4),
        quick=True,
    ),
    Attack(
        "sign-ins of made-up accounts, 100 a second from 50 addresses",
        "floods",
        flood([_sign_in], per_second=100, connections=50, sources=50),
    ),
    Attack(
        "codes mailed to made-up addresses, 30 a second from 10 addresses",
        "floods",
        flood([_otp], per_second=30, connections=10, sources=10),
    ),
    Attack(
        "access tokens of unknown keys, 100 a second",
        "floods",
        flood([_token], per_second=100),
        twin=flood([_sign("customer")], per_second=100),
    ),
    Attack(
        "bodies of 1 MB, 10 a second",
        "S1",
        flood([_post(path, body) for body in BODIES for path in PATHS], per_second=10),
        quick=True,
    ),
    Attack(
        "forms of 1 MB, 5 a second",
        "S1",
        flood(
            [_post("/auth/v1/verify", FORM, ("content-type", "application/x-www-form-urlencoded"))],
            per_second=5,
        ),
    ),
    Attack(
        "messages of 1 to 3 MB by gRPC, 5 a second", "S1", flood([_long_verify, _big_batch], per_second=5)
    ),
    Attack(
        "headers of 14 KB, 100 a second",
        "S1",
        flood([_heavy_heads], per_second=100),
        twin=flood([_sign("customer")], per_second=100),
        quick=True,
    ),
    Attack("cookies in 2,000 pieces, 20 a second", "S1", flood([_crumbs], per_second=20)),
    Attack(
        "statistics of a month by the hour, 20 a second", "S6", flood([_stats], per_second=20), quick=True
    ),
    Attack(
        "pages of 1,000 rows, 20 a second", "S6", flood([_owned("/v1/usage?page_size=1000")], per_second=20)
    ),
    Attack(
        "paths that lead nowhere, 200 a second",
        "floods",
        flood(
            [
                _get("/healthz"),
                _get("/metrics"),
                _get("/console/"),
                _get("/" + "a/" * 2_000),
                _post(
                    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                    b"\0\0\0\0\0",
                    ("content-type", "application/grpc"),
                ),
            ],
            per_second=200,
        ),
    ),
)
