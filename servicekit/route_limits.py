"""The limits of one HTTP route: the sizes of its query, its parameters and its body.

`check` is called first for each request: before authentication, parsing, a rate limit or I/O. It takes linear
time in the length of the query, which `query` limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from servicekit.errors import InvalidArgument

MAX_PARAMETERS: Final = 32
MAX_ID: Final = 36
"""Characters of a parameter in the path: a UUID."""
QUERY: Final = 2 * 1024
"""Bytes of the query of a route that asks for nothing long in it."""


class BodyTooLarge(InvalidArgument):
    """The request's body is larger than its route takes."""

    reason = "BODY_TOO_LARGE"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request's body is larger than the {limit} bytes that this path accepts.")


@dataclass(frozen=True, slots=True)
class Text:
    """The most characters of a string, and the most bytes of it in UTF-8; 0: only the other counts."""

    chars: int = 0
    bytes: int = 0

    def problem(self, text: str) -> str:
        """The violation, "" when there is none."""
        if self.chars and len(text) > self.chars:
            return f"must have at most {self.chars} characters"
        if self.bytes and len(text.encode("utf-8", "surrogatepass")) > self.bytes:
            return f"must have at most {self.bytes} bytes"
        return ""


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """`query` and `body` are bytes. `parameters` are the query's, `members` the body's that are strings."""

    query: int = QUERY
    body: int = 0
    parameters: Mapping[str, Text] = field(default_factory=dict)
    members: Mapping[str, Text] = field(default_factory=dict)

    def check(self, request: Any) -> None:
        """Refuse a Starlette request that is over a limit, before its body is read.

        Raises `InvalidArgument` or `BodyTooLarge`.
        """
        query = request.scope["query_string"]
        if len(query) > self.query:
            raise InvalidArgument(f"The query must have at most {self.query} bytes.")
        if query.count(b"&") + query.count(b";") >= MAX_PARAMETERS:
            raise InvalidArgument(f"The query must have at most {MAX_PARAMETERS} parameters.")
        stated = request.headers.get("content-length", "")
        # Twelve digits are enough to decide; uvicorn refuses a value that is not a number.
        if self.body and stated.isdigit() and (len(stated) > 12 or int(stated) > self.body):  # noqa: PLR2004
            raise BodyTooLarge(self.body)
        for name, value in request.path_params.items():
            if len(value) > MAX_ID:
                raise InvalidArgument.field(name, "must be a UUID")
        if query:
            given = request.query_params
            for name in self.parameters:
                if len(given.getlist(name)) > 1:  # one of them might be a credential: which one counts?
                    raise InvalidArgument.field(name, "must stand once in the query")
            self.check_texts(given, self.parameters)

    @staticmethod
    def check_texts(given: Mapping[str, Any], limits: Mapping[str, Text]) -> None:
        """Raise `InvalidArgument` for a string of `given` that is over its limit."""
        for name, limit in limits.items():
            value = given.get(name)
            if isinstance(value, str) and (problem := limit.problem(value)):
                raise InvalidArgument.field(name, problem)

    async def read(self, request: Any) -> bytes:
        """The request's body. Raises `BodyTooLarge` as soon as there is too much of it."""
        received = bytearray()
        async for part in request.stream():
            received += part
            if len(received) > self.body:
                raise BodyTooLarge(self.body)
        return bytes(received)
