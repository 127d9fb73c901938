"""The size limits of routes, derived from the contract's bounds and from the table of operations.

A member or parameter has the bound of the contract's field of the same name; the few that have another form
in the contract are listed below. Loading this module fails if one has neither; creating a route fails if it
is not in the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from servicekit.route_limits import QUERY, RouteLimits, Text
from services.auth.domain import METADATA_LIMIT
from services.auth.http.openapi import OPERATIONS, Operation
from signgate.auth.v1 import admin_pb2, auth_pb2
from signgate.common.v1 import policy_pb2

OWN: Final = {
    "type": Text(chars=32),  # an enum in the contract
    "scope": Text(chars=32),
    "grant_type": Text(chars=32),
    "page": Text(chars=9),
    "per_page": Text(chars=9),
    "state": Text(chars=32),  # likewise
}
FORM: Final = {"redirect_to": Text(chars=2048)}
"""What the form of the page behind a mailed link has besides."""
_escaped: Final = 6  # a byte in JSON: \u0061
_characters: Final = 12  # a character in JSON: two escaped halves
_encoded: Final = 3  # a byte in a query: %61
_unknown: Final = 8 * 1024
"""Bytes for members that clients send and nothing here reads, such as a captcha's token."""
_objects: Final = {
    "party": 8 * 1024,
    # Browsers give an attestation's parts a second time; see `http.passkeys` for the bounds of each.
    "passkey": 48 * 1024,
}
"""Bytes of members that are objects, by kind."""


def _fields(message: Descriptor) -> Iterator[FieldDescriptor]:
    for field in message.fields:
        yield field
        if field.message_type is not None and field.message_type.file.package == message.file.package:
            yield from _fields(field.message_type)


def _contract(*, by_method: bool) -> dict[str, Text]:
    """The bounds of the contract's strings, by name; with or without those that a method holds itself."""
    found: dict[str, Text] = {}
    for file in (auth_pb2.DESCRIPTOR, admin_pb2.DESCRIPTOR):
        for service in file.services_by_name.values():
            for method in service.methods:
                for field in _fields(method.input_type):
                    bound = field.GetOptions().Extensions[policy_pb2.bound]
                    if field.type == FieldDescriptor.TYPE_STRING and (by_method or not bound.by_method):
                        known = found.get(field.name, Text())
                        found[field.name] = Text(
                            max(known.chars, bound.max_chars), max(known.bytes, bound.max_bytes)
                        )
    return found


_texts: Final = _contract(by_method=True) | OWN
_held: Final = _contract(by_method=False) | OWN


def _most(text: Text) -> int:
    """Bytes of a string in JSON."""
    sizes = [size for size in (text.chars * _characters, text.bytes * _escaped) if size]
    return min(sizes)


def _limits(operation: Operation) -> RouteLimits:
    kinds = {name: kind.rstrip("*") for name, kind in operation.body.items()}
    parameters = {name.rstrip("*"): _texts[name.rstrip("*")] for name in operation.query}
    texts = {name: _texts[name] for name, kind in kinds.items() if kind not in ("flag", "object", *_objects)}
    # What a method holds to its bound itself has an answer of its own: the use case looks first thing.
    members = {name: _held[name] for name in texts if name in _held and kinds[name] != "new_password"}
    if operation.path == "/verify":
        parameters = parameters | {"token_hash": _texts["token_hash"]}
        members = members | FORM
    sizes = [_most(text) for text in (members | texts).values()]
    sizes += [_objects[kind] for kind in kinds.values() if kind in _objects]
    # JSON may escape letters that are counted as they are, such as two bytes of Cyrillic as six. Two objects
    # of nothing else are not foreseen.
    metadata = sum(kind == "object" for kind in kinds.values())
    sizes.append(min(3 * metadata, 4) * METADATA_LIMIT)
    return RouteLimits(
        query=QUERY + sum(_encoded * (text.chars or text.bytes) for text in parameters.values()),
        body=sum(sizes) + _unknown if operation.body else 0,
        parameters=parameters,
        members=members,
    )


LIMITS: Final[Mapping[tuple[str, str], RouteLimits]] = {
    (operation.method, operation.path): _limits(operation) for operation in OPERATIONS
}
"""By method and path."""
