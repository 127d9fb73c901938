"""Checks of a message by the bounds of its contract: one closure a field, put together once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from servicekit.errors import FieldViolation
from servicekit.rpc.contract import SPANS, STRUCT, UnboundedFieldError, bound_of, entry_of, is_map
from signgate.common.v1 import policy_pb2 as pb

_nanos: Final = 1_000_000_000

Violations = list[FieldViolation]
Check = Callable[[Any, str, Violations], None]
"""Checks a message (or an item) and adds a violation, with its path, for each value over its bound."""


def checker(message: Descriptor, above: tuple[str, ...]) -> Check | None:
    """One check of all fields; `None` where none has anything to be looked at.

    `above` names the messages that this one is part of. Raises `UnboundedFieldError`.
    """
    if message.full_name in above:
        raise UnboundedFieldError(f"{message.full_name} holds itself: nothing bounds how deep")
    above = (*above, message.full_name)
    checks = [one for field in message.fields if (one := _field(field, above)) is not None]
    if not checks:
        return None

    def check(found: Any, path: str, violations: Violations) -> None:
        for one in checks:
            one(found, path, violations)

    return check


def _field(field: FieldDescriptor, above: tuple[str, ...]) -> Check | None:
    bound, name = bound_of(field), field.name
    if is_map(field):
        return _map(field, bound)
    value = _value(field, bound, above)
    if field.is_repeated:
        return _list(name, bound, value)
    if value is None:
        return None
    inner = value

    def check_set(message: Any, path: str, violations: Violations) -> None:
        if message.HasField(name):
            inner(getattr(message, name), f"{path}{name}", violations)

    def check(message: Any, path: str, violations: Violations) -> None:
        if found := getattr(message, name):
            inner(found, f"{path}{name}", violations)

    return check_set if field.has_presence else check


def _list(name: str, bound: pb.Bound, value: Check | None) -> Check:
    most = bound.max_items

    def check(message: Any, path: str, violations: Violations) -> None:
        found = getattr(message, name)
        if len(found) > most:
            violations.append(FieldViolation(f"{path}{name}", f"at most {most} items"))
        elif value is not None:
            for place, item in enumerate(found):
                value(item, f"{path}{name}[{place}]", violations)

    return check


def _map(field: FieldDescriptor, bound: pb.Bound) -> Check:
    name, most, (for_key, for_value) = field.name, bound.max_items, entry_of(field)
    if for_value.message_type is not None:
        raise UnboundedFieldError(f"{field.full_name}: a map's values must be plain")
    key, value = _value(for_key, bound, ()), _value(for_value, bound, ())

    def check(message: Any, path: str, violations: Violations) -> None:
        found = getattr(message, name)
        if len(found) > most:
            violations.append(FieldViolation(f"{path}{name}", f"at most {most} entries"))
            return
        for place, (each, held) in enumerate(found.items()):
            for inner, item in ((key, each), (value, held)):
                if inner is not None:
                    inner(item, f"{path}{name}[{place}]", violations)

    return check


def _value(field: FieldDescriptor, bound: pb.Bound, above: tuple[str, ...]) -> Check | None:
    """The check of one value; `None` if every value is valid, or if the method checks it itself."""
    message = field.message_type
    if message is not None and message.full_name not in (*SPANS, STRUCT):
        inner = checker(message, above)
        return None if inner is None else _nested(inner)
    if bound.by_method:
        return None
    if message is not None:
        return _structure(bound) if message.full_name == STRUCT else _span(bound)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _string(bound)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _octets(bound)
    if field.type in (FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_ENUM) or bound.any_value:
        return None
    return _range(bound)


def _nested(inner: Check) -> Check:
    return lambda found, path, violations: inner(found, f"{path}.", violations)


def _string(bound: pb.Bound) -> Check:
    chars, most = bound.max_chars, bound.max_bytes

    def check(found: str, path: str, violations: Violations) -> None:
        if chars and len(found) > chars:
            violations.append(FieldViolation(path, f"at most {chars} characters"))
        elif most and (len(found) > most or (not found.isascii() and len(found.encode()) > most)):
            violations.append(FieldViolation(path, f"at most {most} bytes"))

    return check


def _octets(bound: pb.Bound) -> Check:
    most = bound.max_bytes

    def check(found: bytes, path: str, violations: Violations) -> None:
        if len(found) > most:
            violations.append(FieldViolation(path, f"at most {most} bytes"))

    return check


def _range(bound: pb.Bound) -> Check:
    least, most = bound.min, bound.max

    def check(found: float, path: str, violations: Violations) -> None:
        if not least <= found <= most:  # a NaN is neither
            violations.append(FieldViolation(path, f"must be from {least} to {most}"))

    return check


def _span(bound: pb.Bound) -> Check:
    least, most = bound.min, bound.max

    def check(found: Any, path: str, violations: Violations) -> None:
        seconds, nanos = found.seconds, found.nanos
        low = seconds < least or (seconds == least and nanos < 0)
        high = seconds > most or (seconds == most and nanos > 0)
        if low or high or not -_nanos < nanos < _nanos:
            violations.append(FieldViolation(path, f"must be from {least} to {most} seconds"))

    return check


def _structure(bound: pb.Bound) -> Check:
    most, deepest = bound.max_bytes, bound.max_depth

    def check(found: Message, path: str, violations: Violations) -> None:
        if found.ByteSize() > most:
            violations.append(FieldViolation(path, f"at most {most} bytes"))
        elif not _shallow(found, deepest):
            violations.append(FieldViolation(path, f"at most {deepest} levels deep"))

    return check


def _shallow(struct: Any, deepest: int) -> bool:
    """Whether a Struct has at most so many levels. The parser itself takes no more than a hundred."""
    level = list(struct.fields.values())
    while level:
        if deepest == 0:
            return False
        deepest -= 1
        inner: list[Any] = []
        for value in level:
            kind = value.WhichOneof("kind")
            if kind == "struct_value":
                inner += value.struct_value.fields.values()
            elif kind == "list_value":
                inner += value.list_value.values
        level = inner
    return True
