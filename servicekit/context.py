"""What belongs to the call being served: request id, principal, deadline.

One context variable holds one small mutable object, so that entering a call costs one `set` and
every layer below sees what the layers above learnt. The request id is made only when someone asks
for it. Outside a call (start-up, background loops, batches) there is no context: `current()` is
`None` and `request_id()` is "".
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Final

from servicekit.clock import uuid7
from servicekit.errors import Unauthenticated
from servicekit.principal import Principal

REQUEST_ID_HEADER: Final = "x-request-id"

# Callers choose this value and it reaches logs and peers, so only plain short ids are believed.
_valid_request_id = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{7,63}").fullmatch


Locate = Callable[[Iterable[tuple[str, str | bytes]], Callable[[], str]], str]
"""See `servicekit.edge.Edge.address`."""


class CallContext:
    """One call. `deadline` is on `time.monotonic`'s scale, `None` when the caller set none.

    The request id ties log lines together; a caller may choose it, so it is never an identity and
    never a key for charging or deduplication. `metadata` is what came with the call, credentials
    and all: gRPC would build it again for each reader. `locate` returns the caller's address from the
    metadata and from the connection's peer address, which `peer` returns; see `servicekit.edge`.
    """

    __slots__ = ("_client_ip", "_locate", "_peer", "_request_id", "deadline", "metadata", "principal")

    def __init__(
        self,
        request_id: str | None = None,
        deadline: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        locate: Locate | None = None,
        peer: Callable[[], str] = str,
    ) -> None:
        self._request_id = request_id
        self._locate = locate
        self._peer = peer
        self._client_ip: str | None = None
        self.deadline = deadline
        self.metadata = metadata
        self.principal: Principal | None = None

    @property
    def request_id(self) -> str:
        """The caller's id when it is well formed, else a UUIDv7 minted at the first look."""
        given = self._request_id
        if given is None or not _valid_request_id(given):
            given = self._request_id = str(uuid7())
        return given

    @property
    def client_ip(self) -> str:
        """The caller's address, "" when unknown. Determined at the first access."""
        found = self._client_ip
        if found is None:
            found = self._client_ip = "" if self._locate is None else self._locate(self.metadata, self._peer)
        return found

    def adopt(self, request_id: str) -> None:
        """Use this id for the call, unless the caller gave a well-formed one."""
        given = self._request_id
        if given is None or not _valid_request_id(given):
            self._request_id = request_id


_current: ContextVar[CallContext | None] = ContextVar("signgate_call", default=None)
enter = _current.set
"""Make a `CallContext` the current one for this task. Returns the token for `leave`."""
leave = _current.reset


def current() -> CallContext | None:
    """The call being served by this task, if any."""
    return _current.get()


def request_id() -> str:
    """The current call's request id, "" outside a call."""
    call = _current.get()
    return "" if call is None else call.request_id


def client_ip() -> str:
    """The current caller's address, "" when it is not known or outside a call."""
    call = _current.get()
    return "" if call is None else call.client_ip


def principal() -> Principal:
    """The authenticated caller. Raises `Unauthenticated` where the policy asked for no credential."""
    call = _current.get()
    if call is None or call.principal is None:
        raise Unauthenticated(reason="CREDENTIAL_MISSING")
    return call.principal


def remaining() -> float | None:
    """Seconds until the caller's deadline: may be negative, `None` when there is no deadline."""
    call = _current.get()
    if call is None or call.deadline is None:
        return None
    return call.deadline - time.monotonic()
