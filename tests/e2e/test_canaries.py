"""S24. Credentials, whole and damaged, in every place of a request, to every port: none is in any log.

Masking knows a secret by its shape, and a damaged one has none. So the whole of what all processes wrote is
looked through for pieces of the secret.
"""

from __future__ import annotations

import base64
import json
import socket
import string
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from random import Random

from deploy.local.layout import HOST, Layout
from servicekit import apikey
from servicekit.clock import SystemEntropy, SystemIds
from tests.conftest import Running
from tests.e2e.http2 import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, SETTINGS, frame

PIECE = 8
"""Characters of the secret that may not stand in a log in one run."""
EACH = 1
AT_ONCE = 8
ENDING = {DATA, HEADERS, RST_STREAM, 7}
_random = Random(24)  # noqa: S311  # the same ones at every run
Request = tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]
"""Method, path, headers and body."""


def made_up() -> bytes:
    """A key of the right form, that no service knows."""
    return apikey.mint("live", SystemIds().uuid7(), SystemEntropy()).encode()


KEY = made_up()
JWT = b".".join(
    base64.urlsafe_b64encode(part).rstrip(b"=")
    for part in (b'{"alg":"ES256","kid":"k"}', b'{"sub":"' + KEY[31:] + b'"}', _random.randbytes(64))
)
PASSWORD = "".join(_random.choices(string.ascii_letters + string.digits, k=40)).encode()


def basic(secret: bytes) -> bytes:
    return base64.b64encode(secret + b":")


def damaged(secret: bytes) -> Iterator[bytes]:
    """As it is, and as a clipboard, a shell, an editor or an attacker might have left it."""
    half = len(secret) // 2 + 8
    yield secret
    for byte in (b"\xff", b"\xc3", b"\xe2\x80\x8b", b" ", b"\t", b'"', b"'", b"%", b"{", b"\\", b"/", b";"):
        yield secret[:half] + byte + secret[half:]
    yield b"\xff" + secret
    yield secret + b"\xff"
    yield secret[1:]
    yield secret[9:]
    yield secret[:-1]
    yield secret.upper()
    yield secret.lower()
    yield secret.replace(b"_", b"-")
    yield b'"' + secret + b'"'
    yield secret + b"," + secret
    yield b"".join(b"%%%02x" % byte for byte in secret[:half]) + secret[half:]


SECRETS = [
    form
    for secret in (KEY, JWT, PASSWORD)
    for form in (*damaged(secret), basic(secret), *damaged(basic(secret)))
]


def traces() -> set[str]:
    """Every piece of a secret, in small letters."""
    texts = [KEY[apikey.PUBLIC_LENGTH :], JWT.split(b".")[2], PASSWORD, basic(PASSWORD), basic(KEY)[44:]]
    return {text[at : at + PIECE].lower().decode() for text in texts for at in range(len(text) - PIECE + 1)}


def places(secret: bytes) -> Iterator[Request]:
    """Requests with it, everywhere."""
    paths = [
        (b"GET", b"/v1/keys"),
        (b"GET", b"/auth/v1/user"),
        (b"POST", b"/webcast/sign_url"),
        (b"POST", b"/signgate.keys.v1.KeysService/ListKeys"),
        (b"POST", b"/signgate.keys.v1.KeyValidationService/ValidateKeys"),
    ]
    for method, path in paths:
        kind = [(b"content-type", b"application/grpc" if b"signgate" in path else b"application/json")]
        for name, value in (
            (b"x-api-key", secret),
            (b"authorization", b"Bearer " + secret),
            (b"authorization", b"Basic " + secret),
            (b"authorization", secret),
            (b"x-api-key-bin", secret),
            (b"apikey", secret),
            (b"cookie", b"sb-access-token=" + secret),
            (b"user-agent", secret),
            (b"referer", b"http://x.test/?apiKey=" + secret),
            (b"x-forwarded-for", secret),
            (b"x-signgate-edge", secret),
            (b"x-signgate-service", secret),
            (b"grpc-timeout", secret),
            (b"grpc-encoding", secret),
            (b"traceparent", secret),
            (b"tracestate", b"a=" + secret),
            (b"x-supabase-api-version", secret),
            (b"accept-encoding", secret),
            (secret.lower(), b"1"),
        ):
            yield method, path, [*kind, (name, value)], b"\0\0\0\0\0" if b"signgate" in path else b""
        for more in (
            b"?apiKey=",
            b"?token=",
            b"?",
            b"#",
            b"%3FapiKey=",
            b";apiKey=",
            b"/",
            b":",
            b"&apiKey=",
        ):
            yield method, path + more + secret, kind, b""
        wrote = secret.decode("latin-1")
        bodies = [secret, b"apiKey=" + secret, b'{"password":"' + secret + b'"}', b"\0\0\0\0\x08" + secret]
        bodies += [json.dumps({"email": wrote, "token": wrote, "refresh_token": wrote}).encode()]
        bodies += [b"\0" + struct.pack(">I", len(secret) + 2) + b"\x0a" + bytes([len(secret) & 127]) + secret]
        for body in bodies:
            yield method, path, kind, body
            yield b"POST", b"/auth/v1/token?grant_type=password", kind, body
    yield b"GET", b"/" + secret, [], b""
    yield b"GET", b"http://" + secret + b":x@edge/v1/keys", [], b""
    yield b"DELETE", b"/v1/keys/" + secret, [], b""
    yield b"POST", b"/v1/keys/" + secret + b":revoke", [], b""
    yield b"GET", b"/auth/v1/verify?token=" + secret + b"&type=signup", [], b""
    yield b"GET", b"/auth/v1/admin/users/" + secret, [], b""
    yield b"GET", b"/console/" + secret, [], b""
    yield b"POST", b"/signgate.keys.v1.KeysService/" + secret, [(b"content-type", b"application/grpc")], b""
    yield secret, b"/v1/keys", [], b""


def http1(port: int, requests: list[Request]) -> int:
    """One after the other; how many had an answer."""
    answered = 0
    for method, path, headers, body in requests:
        lines = [method + b" " + path + b" HTTP/1.1", b"host: edge", b"connection: close"]
        lines += [name + b": " + value for name, value in headers] + [b"content-length: %d" % len(body)]
        with suppress(OSError), socket.create_connection((HOST, port), timeout=5) as raw:
            raw.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            answered += raw.recv(65536) != b""
    return answered


def http2(port: int, requests: list[Request]) -> int:
    """The same on HTTP/2, each on a connection of its own: many are invalid, and end it."""
    answered = 0
    for method, path, headers, body in requests:
        fields = [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"edge")]
        block = b"".join(b"\0" + text(name) + text(value) for name, value in [*fields, *headers])
        sent = PREFACE + frame(SETTINGS, 0, 0) + frame(SETTINGS, ACK, 0)
        sent += frame(HEADERS, END_HEADERS | (0 if body else END_STREAM), 1, block)
        with suppress(OSError), socket.create_connection((HOST, port), timeout=5) as raw:
            raw.sendall(sent + (frame(DATA, END_STREAM, 1, body) if body else b""))
            raw.settimeout(0.2)
            # Some settings and acknowledgements, and then what was asked for, or the end.
            got = 0
            with suppress(OSError):
                while (more := raw.recv(65536)) and not ENDING.intersection(kinds(more)):
                    got += len(more)
            answered += got > 0
    return answered


def kinds(received: bytes) -> Iterator[int]:
    """The kinds of the frames in it."""
    while len(received) >= 9:
        yield received[3]
        received = received[9 + int.from_bytes(received[:3]) :]


def text(raw: bytes) -> bytes:
    """A string of HPACK."""
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    size, rest = b"\x7f", len(raw) - 127
    while rest > 127:
        size += bytes([rest & 127 | 128])
        rest >>= 7
    return size + bytes([rest]) + raw


def ports(layout: Layout) -> Iterator[tuple[str, int]]:
    """What a caller, or somebody inside, can speak HTTP to."""
    for name in ("edge", "envoy_admin", "envoy_metrics"):
        yield name, layout.port(name)
    for instance in layout.instances():
        for kind in instance.service.ports:
            yield f"{instance.name} {kind}", instance.port(kind)


def found(running: Running, pieces: set[str]) -> dict[str, str]:
    """By log, the first line with a piece."""
    wrong = {}
    for log in running.layout.logs.iterdir():
        written = log.read_text(encoding="utf-8", errors="replace").lower()
        for line in written.splitlines():
            windows = {line[at : at + PIECE] for at in range(len(line) - PIECE + 1)}
            if windows & pieces:
                wrong[log.name] = line
                break
    return wrong


def share(turn: int) -> list[Request]:
    """Every place, each with a few of the secrets; other ones at every turn."""
    chosen = count(turn * 7)
    by_place = zip(*(places(secret) for secret in SECRETS), strict=True)
    return [place[next(chosen) % len(place)] for place in by_place for _ in range(EACH)]


def test_no_piece_of_a_credential_is_in_any_log(running: Running) -> None:
    """S24."""
    for turn, (name, port) in enumerate(ports(running.layout)):
        requests = share(turn)
        mine = [requests[n::AT_ONCE] for n in range(AT_ONCE)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            answered = sum(pool.map(partial(http1, port), mine)) + sum(pool.map(partial(http2, port), mine))
        assert answered > len(requests) / 4, name
    assert found(running, traces()) == {}
    for instance in running.layout.instances():
        running.stack.wait(instance.name)  # all go on
