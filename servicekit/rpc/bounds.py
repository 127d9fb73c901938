"""The bounds of a method's request, read from its contract and checked before anything else.

Only the proof of which service makes an internal call comes earlier.

`readers` returns, for each method of a service, the function that turns bytes into the message. It refuses
bytes that are longer than the sum of the fields' bounds before it parses them, then invalid protobuf, then
fields over their bounds. All of it is linear in the message's size and does no I/O.

    MESSAGE_TOO_LARGE    longer than the method's messages can be
    MESSAGE_MALFORMED    not the protobuf message of this method
    VALIDATION_FAILED    a field over its bound; `violations` name each, at most `MAX_VIOLATIONS`

Building a server fails if a field that needs a bound has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError

from servicekit.errors import InvalidArgument
from servicekit.rpc.checks import Violations, checker
from servicekit.rpc.contract import size_of

MAX_MESSAGE: Final = 4 * 1024 * 1024
"""Bytes of one message, either way: what the runtime takes and gives at most."""
MAX_VIOLATIONS: Final = 20
BY_METHOD_LIMIT: Final = 128 * 1024
"""Messages are at least this long where a method tells by itself what is over a bound."""
_slack: Final = 1024  # fields that only a newer client knows

Parse = Callable[[bytes], Any]
Read = Callable[[bytes], Any]


class MessageTooLarge(InvalidArgument):
    """The message is longer than one of its method can be."""

    reason = "MESSAGE_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"The message is larger than the {limit} bytes that this method accepts.",
            metadata={"limit_bytes": str(limit)},
        )


class MessageMalformed(InvalidArgument):
    """The bytes are not the method's message."""

    reason = "MESSAGE_MALFORMED"
    message = "The message is not the protobuf message that this method takes."


def readers(service: str) -> dict[str, Callable[[Parse], Read]]:
    """For each method of a service, by name: what makes a reader of its parser.

    Raises `UnboundedFieldError`, naming the field.
    """
    methods = descriptor_pool.Default().FindServiceByName(service).methods
    return {method.name: _maker(method) for method in methods}


def limit_of(method: MethodDescriptor) -> int:
    """The most bytes of a message of this method. Raises `UnboundedFieldError`."""
    size, by_method = size_of(method.input_type)
    whole = -(-(size + _slack) // 1024) * 1024
    if by_method:
        whole = max(whole, BY_METHOD_LIMIT)
    return min(whole, MAX_MESSAGE)


def _maker(method: MethodDescriptor) -> Callable[[Parse], Read]:
    check, limit = checker(method.input_type, ()), limit_of(method)

    def make(parse: Parse) -> Read:
        def read(raw: bytes) -> Any:
            if len(raw) > limit:
                raise MessageTooLarge(limit)
            try:
                message = parse(raw)
            except DecodeError:
                raise MessageMalformed from None
            if check is not None:
                found: Violations = []
                check(message, "", found)
                if found:
                    raise InvalidArgument(
                        f"{found[0].field}: {found[0].description}", violations=found[:MAX_VIOLATIONS]
                    )
            return message

        return read

    return make
