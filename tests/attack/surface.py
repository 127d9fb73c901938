"""Every place where a stranger's text enters: the fields of all public RPCs, the routes of both HTTP faces.

Read from the contracts themselves (the descriptor set, the OpenAPI documents), so a new field is one more
place without a word here.
"""

from __future__ import annotations

import importlib
import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import uuid4

import grpc
import httpx
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

from deploy.local.layout import ROOT
from signgate.common.v1 import policy_pb2
from tests.conftest import Running
from tests.e2e.conftest import Account

OWNERS: Final = {"auth": "auth", "keys": "keys", "quota": "quota", "usage": "logger", "signer": "signer"}
"""Which service serves a package of the contract."""
STRUCT: Final = "google.protobuf.Struct"
TIMEOUT: Final = 60.0


class Place(NamedTuple):
    """One place. `send` puts a text there and returns the refusal's reason, "" when there was none.

    `deep` does so in a request whose other parts are good, where that leads further: past a limit of a rate,
    a password's hash, an answer that is held back; so it is slow. `bound` is what the contract says that it
    holds, 0 where it does not say; `by_method`: more may come as far as the method. `counted`: only
    the text's length matters there.
    """

    name: str
    service: str
    bound: int
    send: Callable[[str], str]
    deep: Callable[[str], str] | None = None
    by_method: bool = False
    counted: bool = False

    def __str__(self) -> str:
        return self.name


class Credentials(NamedTuple):
    """What callers show, by the kind of access that a method asks for."""

    account: Account
    service_role: str

    def metadata(self, access: int) -> tuple[tuple[str, str], ...]:
        """As gRPC's metadata."""
        if access == policy_pb2.ACCESS_PUBLIC:
            return ()
        if access == policy_pb2.ACCESS_API_KEY:
            return (("x-api-key", self.account.key),)
        token = self.account.session.access_token
        if access == policy_pb2.ACCESS_SERVICE_ROLE:
            token = self.service_role
        return (("authorization", f"Bearer {token}"),)


def methods() -> Iterator[tuple[MethodDescriptor, int]]:
    """Every method that the edge routes, with its access."""
    files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen/signgate.binpb").read_bytes())
    for file in files.file:
        if not file.name.startswith("signgate/"):
            continue
        importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
        for service in file.service:
            name = f"{file.package}.{service.name}"
            for method in descriptor_pool.Default().FindServiceByName(name).methods:
                access = method.GetOptions().Extensions[policy_pb2.policy].access
                if access != policy_pb2.ACCESS_INTERNAL:
                    yield method, access


Write = Callable[[Any, str], None]


class Field(NamedTuple):
    """A field, by its path in the request, with what writes a text into it."""

    path: str
    bound: int
    write: Write
    by_method: bool = False
    counted: bool = False


def fields(message: Any, path: str = "", reach: Callable[[Any], Any] = lambda top: top) -> Iterator[Field]:
    """Every field that holds text or a structure, nested ones too; lists as one long item and as many."""
    for field in message.fields:
        name, here = field.name, f"{path}{field.name}"
        bound = field.GetOptions().Extensions[policy_pb2.bound]
        size = bound.max_chars or bound.max_bytes
        nested = field.message_type
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            if field.is_repeated:
                yield Field(f"{here}[0]", size, _item(reach, name))
                yield Field(f"{here}[*]", bound.max_items, _items(reach, name), counted=True)
            else:
                write = _text(reach, name, field.type == FieldDescriptor.TYPE_BYTES)
                yield Field(here, size, write, bound.by_method)
        elif nested is not None and nested.GetOptions().map_entry:
            yield Field(f"{here} as a name", size, _pair(reach, name, lambda text: {text: "x"}))
            yield Field(f"{here} as a value", size, _pair(reach, name, lambda text: {"x": text}))
            yield Field(f"{here}[*]", bound.max_items, _pair(reach, name, _pairs), counted=True)
        elif nested is not None and nested.full_name == STRUCT:
            for shape, fill in STRUCTS.items():
                counted = not shape.startswith("a text")
                yield Field(f"{here} as {shape}", size, _struct(reach, name, fill), counted=counted)
        elif nested is not None and not nested.full_name.startswith("google.protobuf."):
            if field.is_repeated:
                yield from fields(nested, f"{here}[0].", _first(reach, name))
                yield Field(f"{here}[*]", bound.max_items, _messages(reach, name), counted=True)
            else:
                yield from fields(nested, f"{here}.", _inner(reach, name))


def _inner(reach: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
    return lambda top: getattr(reach(top), name)


def _first(reach: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
    return lambda top: getattr(reach(top), name).add()


def _text(reach: Callable[[Any], Any], name: str, raw: bool) -> Write:  # noqa: FBT001
    return lambda top, text: setattr(reach(top), name, text.encode() if raw else text)


def _item(reach: Callable[[Any], Any], name: str) -> Write:
    return lambda top, text: getattr(reach(top), name).append(text)


def _items(reach: Callable[[Any], Any], name: str) -> Write:
    """Each letter an item of its own: the text's length is how many there are."""
    return lambda top, text: getattr(reach(top), name).extend(text)


def _messages(reach: Callable[[Any], Any], name: str) -> Write:
    def write(top: Any, text: str) -> None:
        items = getattr(reach(top), name)
        for _ in text:
            items.add()

    return write


def _pair(reach: Callable[[Any], Any], name: str, made: Callable[[str], dict[str, str]]) -> Write:
    return lambda top, text: getattr(reach(top), name).update(made(text))


def _pairs(text: str) -> dict[str, str]:
    """As many as the text has letters."""
    return {f"{text[:1]}{place}": "x" for place in range(len(text))}


def _struct(reach: Callable[[Any], Any], name: str, shape: Callable[[Any, str], None]) -> Write:
    return lambda top, text: shape(getattr(reach(top), name), text)


def _deep(struct: Any, text: str) -> None:
    for _ in range(min(len(text), 30)):
        struct = struct.fields["a"].struct_value
    struct.fields["b"].string_value = text


def _wide(struct: Any, text: str) -> None:
    for place in range(len(text) // 8):
        struct.fields[f"{text[:1]}{place}"].number_value = 1


def _listed(struct: Any, text: str) -> None:
    values = struct.fields["a"].list_value.values
    for _ in range(len(text) // 8):
        values.add().number_value = 1


STRUCTS: Final[dict[str, Callable[[Any, str], None]]] = {
    "a text": lambda struct, text: setattr(struct.fields["a"], "string_value", text),
    "a name": lambda struct, text: setattr(struct.fields[text], "bool_value", True),
    "depth": _deep,
    "members": _wide,
    "a list": _listed,
}


def grpc_places(channel: grpc.Channel, credentials: Credentials) -> Iterator[Place]:
    """Every field of every method that the edge routes."""
    for method, access in methods():
        for field in fields(method.input_type):
            public = access == policy_pb2.ACCESS_PUBLIC
            send = partial(_call, channel, method, credentials.metadata(access), field)
            yield Place(
                f"{method.full_name} {field.path}",
                OWNERS[method.full_name.split(".")[1]],
                field.bound,
                partial(send, False),
                partial(send, True) if public else None,
                field.by_method,
                field.counted,
            )


def _call(
    channel: grpc.Channel,
    method: MethodDescriptor,
    metadata: tuple[tuple[str, str], ...],
    field: Field,
    deep: bool,  # noqa: FBT001
    text: str,
) -> str:
    path = f"/{method.containing_service.full_name}/{method.name}"
    request = message_factory.GetMessageClass(method.input_type)()
    _fill(request, deep=deep)
    field.write(request, text)
    try:
        if method.client_streaming:
            call: Any = channel.stream_stream(path, _serialized, bytes)
            answers = call(iter((request,)), timeout=TIMEOUT, metadata=metadata)
        else:
            call = channel.unary_stream(path, _serialized, bytes)
            answers = call(request, timeout=TIMEOUT, metadata=metadata)
        for _ in answers:
            pass
    except grpc.RpcError as error:
        return _reason(error)
    return ""


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _fill(request: Any, *, deep: bool) -> None:
    """What takes a request past the first looks, so that it is not refused because of another field."""
    for field in request.DESCRIPTOR.fields:
        if field.is_repeated or field.containing_oneof is not None:
            continue
        if field.name == "id" or field.name.endswith("_id"):
            setattr(request, field.name, str(uuid4()))
        elif field.name == "name":
            setattr(request, field.name, "growth")
        elif field.type == FieldDescriptor.TYPE_ENUM and not field.has_presence:
            setattr(request, field.name, 1)
        elif deep and field.name == "email":
            setattr(request, field.name, f"growth-{secrets.token_hex(8)}@example.com")
        elif deep and field.name == "password":
            setattr(request, field.name, secrets.token_urlsafe(16))


def _reason(error: Any) -> str:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for reason in ("MESSAGE_TOO_LARGE",):
                if reason.encode() in value:
                    return reason
    return str(error.code().name)


def http_places(running: Running, http: httpx.Client, credentials: Credentials) -> Iterator[Place]:
    """Every parameter, member and body of both faces' routes, and the headers that services read."""
    for service, base, document in (
        ("auth", "/auth/v1", "/auth/v1/openapi.json"),
        ("signer", "", "/webcast/openapi.json"),
    ):
        found = http.get(document).json()
        for path, operations in found["paths"].items():
            if path.endswith("/"):
                continue  # the same route, with a slash at its end
            for verb, operation in operations.items():
                route = _Route(http, verb.upper(), base + path, _headers(operation, service, credentials))
                for name, send, deep in route.places(operation, found):
                    counted = name.removeprefix("body of ") in BODIES and name != "body of the text itself"
                    named = f"{verb.upper()} {base}{path} {name}"
                    yield Place(named, service, 0, send, deep, counted=counted)
    for service, path in NEIGHBOURS.items():
        for header in HEADERS:
            yield Place(f"GET {path} {header}", service, 0, _header(http, path, header, credentials))


NEIGHBOURS: Final = {
    "auth": "/auth/v1/user",
    "keys": "/v1/keys",
    "quota": "/v1/quota",
    "logger": "/v1/alerts",
    "signer": "/webcast/rate_limits",
}
"""Something cheap of each service, for a signed-in user."""
HEADERS: Final = (
    "authorization", "x-api-key", "user-agent", "x-request-id", "traceparent", "x-forwarded-for",
    "x-supabase-api-version", "content-type",
)  # fmt: skip


def _header(http: httpx.Client, path: str, header: str, credentials: Credentials) -> Callable[[str], str]:
    def send(text: str) -> str:
        value = text.encode("latin-1", "replace").replace(b"\0", b"0").strip()
        sent = {b"authorization": f"Bearer {credentials.account.session.access_token}".encode()}
        sent[header.encode()] = b"Bearer " + value if header == "authorization" else value
        return _answered(lambda: http.get(path, headers=sent))

    return send


def _headers(operation: Any, service: str, credentials: Credentials) -> dict[str, str]:
    if service == "signer":
        return {"x-api-key": credentials.account.key}
    needs: dict[str, list[str]] = next(iter(operation.get("security") or [{}]), {})
    if "admin" in needs:
        return {"authorization": f"Bearer {credentials.service_role}"}
    if "user" in needs:
        return {"authorization": f"Bearer {credentials.account.session.access_token}"}
    return {}


class _Route:
    def __init__(self, http: httpx.Client, verb: str, path: str, headers: dict[str, str]) -> None:
        self._http, self._verb, self._path, self._headers = http, verb, path, headers

    def places(
        self, operation: Any, document: Any
    ) -> Iterator[tuple[str, Callable[[str], str], Callable[[str], str] | None]]:
        fixed = {
            q["name"]: (q.get("schema", {}).get("enum") or [""])[0]
            for q in operation.get("parameters", ())
            if q["in"] == "query"
        }
        for parameter in operation.get("parameters", ()):
            if parameter["in"] == "query":
                yield f"?{parameter['name']}", self._query(fixed, parameter["name"]), None
            elif parameter["in"] == "path":
                yield f"{{{parameter['name']}}}", self._in_path(parameter["name"]), None
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            if "$ref" in schema:
                schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            for name in schema["properties"]:
                deep = None if self._headers else partial(self._member, fixed, name, schema, True)
                yield name, partial(self._member, fixed, name, schema, False), deep
            for shape, write in BODIES.items():
                yield f"body of {shape}", self._body(fixed, write, "application/json"), None
            yield "form", self._body(fixed, str, "application/x-www-form-urlencoded"), None

    def _send(self, path: str = "", **more: Any) -> str:
        headers = self._headers | more.pop("headers", {})
        path = path or self._path.replace("{", "").replace("}", "")
        return _answered(lambda: self._http.request(self._verb, path, headers=headers, **more))

    def _query(self, fixed: dict[str, str], name: str) -> Callable[[str], str]:
        return lambda text: self._send(params=fixed | {name: text})

    def _in_path(self, name: str) -> Callable[[str], str]:
        def send(text: str) -> str:
            text = text.replace("/", "_").replace("?", "_").replace("#", "_").replace("\0", "_")
            return self._send(self._path.replace(f"{{{name}}}", text))

        return send

    def _member(self, fixed: dict[str, str], name: str, schema: Any, deep: bool, text: str) -> str:  # noqa: FBT001
        members: dict[str, Any] = {
            each: (kind.get("enum") or [kind.get("const", "")])[0]
            for each, kind in schema["properties"].items()
            if "enum" in kind or "const" in kind
        }
        if deep and "email" in schema["properties"]:
            members["email"] = f"growth-{secrets.token_hex(8)}@example.com"
        if deep and "password" in schema["properties"]:
            members["password"] = secrets.token_urlsafe(16)
        if "object" in schema["properties"][name].get("type", ()):
            members[name] = {text[:100]: text, "n": [1] * (len(text) // 4)}
        else:
            members[name] = text
        content = json.dumps(members, ensure_ascii=False).encode()
        return self._send(params=fixed, content=content, headers={"content-type": "application/json"})

    def _body(self, fixed: dict[str, str], write: Callable[[str], str], kind: str) -> Callable[[str], str]:
        return lambda text: self._send(
            params=fixed, content=write(text).encode("utf-8", "replace"), headers={"content-type": kind}
        )


BODIES: Final[dict[str, Callable[[str], str]]] = {
    "the text itself": lambda text: text,
    "lists in lists": lambda text: '{"a":' + "[" * len(text),
    "members": lambda text: "{" + ",".join(f'"{n}":1' for n in range(len(text) // 8)) + ',"z":1}',
    "one name again": lambda text: "{" + '"a":1,' * (len(text) // 6) + '"a":1}',
    "a long number": lambda text: '{"a":' + "9" * len(text) + "}",
    "a long fraction": lambda text: '{"a":0.' + "9" * len(text) + "}",
    "a long exponent": lambda text: '{"a":1e' + "9" * len(text) + "}",
    "long numbers": lambda text: '{"a":[' + ",".join(["9" * 4000] * (len(text) // 4000 + 1)) + "]}",
    "escapes": lambda text: '{"email":"' + "\\u0040" * (len(text) // 6) + '"}',
}


def _answered(ask: Callable[[], httpx.Response]) -> str:
    with suppress(
        httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError
    ):  # what the client itself won't write reaches no service
        answer = ask()
        if answer.status_code in (413, 414, 431):
            return "MESSAGE_TOO_LARGE"
        return "" if answer.is_success else str(answer.status_code)
    return "MESSAGE_TOO_LARGE"
