"""The contract's bounds of a request's fields, and the maximum message size that follows from them."""

from __future__ import annotations

from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from signgate.common.v1 import policy_pb2 as pb

SPANS: Final = ("google.protobuf.Duration", "google.protobuf.Timestamp")
STRUCT: Final = "google.protobuf.Struct"


class UnboundedFieldError(Exception):
    """A field of a request has no bound, or one of the wrong kind: the server must not start."""


def bound_of(field: FieldDescriptor) -> pb.Bound:
    """The bound in a field's options. The table in `policy.proto` says what a field needs.

    Raises `UnboundedFieldError` if something is missing.
    """
    bound = field.GetOptions().Extensions[pb.bound]
    wanted = _wanted(field)
    if wanted & ~_given(bound):
        names = [name for bit, name in _kinds.items() if wanted & ~_given(bound) & bit]
        raise UnboundedFieldError(f"{field.full_name} needs (signgate.common.v1.bound) with {names}")
    return bound


_items, _text, _bytes, _number, _depth = 1, 2, 4, 8, 16
_kinds: Final = {
    _items: "max_items",
    _text: "max_chars or max_bytes",
    _bytes: "max_bytes",
    _number: "min and max",
    _depth: "max_depth",
}
_foreign: Final = "google.protobuf."


def _given(bound: pb.Bound) -> int:
    ranged = bound.any_value or (bound.HasField("min") and bound.HasField("max"))
    return (
        (_items if bound.max_items else 0)
        | (_text if bound.max_chars or bound.max_bytes else 0)
        | (_bytes if bound.max_bytes else 0)
        | (_number if ranged else 0)
        | (_depth if bound.max_depth else 0)
    )


def _wanted(field: FieldDescriptor) -> int:
    if is_map(field):
        key, value = entry_of(field)
        return _items | _one(key) | _one(value)
    return (_items if field.is_repeated else 0) | _one(field)


def _one(field: FieldDescriptor) -> int:
    """What a single value of this field needs."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes
    if field.message_type is not None:
        name = field.message_type.full_name
        if name in SPANS:
            return _number
        if name == STRUCT:
            return _bytes | _depth
        if name.startswith(_foreign):
            raise UnboundedFieldError(f"{field.full_name}: no bound is known for a {name}")
        return 0
    return 0 if field.type in (FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_ENUM) else _number


def is_map(field: FieldDescriptor) -> bool:
    """Whether it is a map, which is a list of entries to protobuf."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def entry_of(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    """The key and the value of a map. Raises `TypeError` for another field."""
    if field.message_type is None:
        raise TypeError(f"{field.full_name} is not a map")
    return field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]


_tag: Final = 3
_length: Final = 4
_scalar: Final = 10
_utf8: Final = 4


def size_of(message: Descriptor) -> tuple[int, bool]:
    """The most bytes of a message as protobuf, and whether a method looks at a part of it itself."""
    total, by_method = 0, False
    for field in message.fields:
        size, inside = _field_size(field)
        total += size
        by_method = by_method or inside
    return total, by_method


def _field_size(field: FieldDescriptor) -> tuple[int, bool]:
    bound = bound_of(field)
    many = bound.max_items if field.is_repeated else 1
    if is_map(field):
        one = sum(_value_size(part, bound)[0] + _tag for part in entry_of(field)) + _length
        return many * (one + _tag), bound.by_method
    one, inside = _value_size(field, bound)
    return many * (one + _tag), inside or bound.by_method


def _value_size(field: FieldDescriptor, bound: pb.Bound) -> tuple[int, bool]:
    if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        sizes = [size for size in (bound.max_chars * _utf8, bound.max_bytes) if size]
        return min(sizes) + _length, False
    if field.message_type is None:
        return _scalar, False
    if field.message_type.full_name in SPANS:
        return 2 * (_scalar + 1) + 1, False
    if field.message_type.full_name == STRUCT:
        return bound.max_bytes + _length, False
    size, inside = size_of(field.message_type)
    return size + _length, inside
