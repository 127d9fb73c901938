"""The one error tree, drawn whole.

    SigngateError
    ├── InvalidArgument      INVALID_ARGUMENT     the request itself is wrong; `violations` say where
    ├── Unauthenticated      UNAUTHENTICATED      no credential, or one that does not hold
    ├── PermissionDenied     PERMISSION_DENIED    a good credential that may not do this
    ├── NotFound             NOT_FOUND            no such thing, or none that this caller may see
    ├── AlreadyExists        ALREADY_EXISTS       a unique value is taken
    ├── FailedPrecondition   FAILED_PRECONDITION  right request, wrong state; retrying alone won't help
    ├── Aborted              ABORTED              lost a race; the whole step may be retried
    ├── ResourceExhausted    RESOURCE_EXHAUSTED   quota or rate used up; `quota` and `retry_after` say which
    ├── Cancelled            CANCELLED            the caller went away
    ├── DeadlineExceeded     DEADLINE_EXCEEDED    the caller's deadline passed before the work was done
    ├── Unimplemented        UNIMPLEMENTED        this server does not offer that
    ├── Unavailable          UNAVAILABLE          a dependency or this server can't serve now; retry later
    └── Internal             INTERNAL             a bug; nothing about it is told

A service states its own errors by subclassing, with the reason and message as class attributes:

    class KeyRevoked(Unauthenticated):
        reason = "KEY_REVOKED"
        message = "This API key has been revoked."

Guarantees: `message`, `metadata` and `violations` are *public*: they reach the caller as they
stand, so never put a credential, an e-mail address or a driver's own text there. What only the
log may see goes into the exception's `__cause__` (`raise X from err`). `str` and `repr` show
reason and message alone. Pure standard library, so that domain code may import it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

DOMAIN = "signgate"
"""The `domain` of every `google.rpc.ErrorInfo` that leaves this system."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One wrong field. `field` is the proto path (`items[3].room_url`), `description` is public.

    Without a `reason` of its own it has its error's.
    """

    field: str
    description: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class QuotaFacts:
    """The quota a caller stands before. Counts are requests; times are seconds.

    `reset_after` is the time left until the window opens again, `reset_at` the same as epoch
    seconds (0 when unknown).
    """

    name: str
    limit: int
    remaining: int
    reset_after: float
    reset_at: float = 0.0


class SigngateError(Exception):
    """Base of all errors that a caller may be told about.

    `reason` is stable and UPPER_SNAKE; clients switch on it. `retry_after` is in seconds, `None`
    when waiting gains nothing.
    """

    status: ClassVar[str] = "UNKNOWN"
    reason: str = "UNKNOWN"
    message: str = "The request failed."

    def __init__(
        self,
        message: str | None = None,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
        quota: QuotaFacts | None = None,
    ) -> None:
        super().__init__(message)
        if message is not None:
            self.message = message
        if reason is not None:
            self.reason = reason
        self.metadata: dict[str, str] = dict(metadata) if metadata else {}
        self.violations: tuple[FieldViolation, ...] = tuple(violations)
        self.retry_after = retry_after
        self.quota = quota

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason!r}, {self.message!r})"

    def again(self) -> Self:
        """An equal error with no traceback, for handing one failure to several waiters.

        Raising one instance in many tasks would grow one shared traceback without end.
        """
        twin = type(self).__new__(type(self))
        Exception.__init__(twin, *self.args)
        twin.__dict__.update(self.__dict__)
        twin.__cause__ = self.__cause__
        return twin


class InvalidArgument(SigngateError):
    """The request is wrong in itself, whatever the state of the system."""

    status = "INVALID_ARGUMENT"
    reason = "VALIDATION_FAILED"
    message = "The request is not valid."

    @classmethod
    def field(cls, name: str, description: str, reason: str = "VALIDATION_FAILED") -> Self:
        """An error about one field, with the violation listed for the caller's form."""
        return cls(
            f"{name}: {description}",
            reason=reason,
            violations=(FieldViolation(name, description, reason),),
        )


class Unauthenticated(SigngateError):
    """No credential, or one that does not hold."""

    status = "UNAUTHENTICATED"
    reason = "UNAUTHENTICATED"
    message = "A valid credential is required."


class PermissionDenied(SigngateError):
    """The credential is good, and may not do this."""

    status = "PERMISSION_DENIED"
    reason = "PERMISSION_DENIED"
    message = "This credential may not do that."


class NotFound(SigngateError):
    """No such thing, or none that the caller may see: the two are told apart nowhere."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"
    message = "There is no such resource."


class AlreadyExists(SigngateError):
    """A value that must be unique is taken."""

    status = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"
    message = "That already exists."


class FailedPrecondition(SigngateError):
    """The system is not in the state that the request needs; retrying alone won't help."""

    status = "FAILED_PRECONDITION"
    reason = "FAILED_PRECONDITION"
    message = "That is not possible in the present state."


class Aborted(SigngateError):
    """Lost a race against another request; the whole step may be retried."""

    status = "ABORTED"
    reason = "ABORTED"
    message = "Another request changed this first. Try again."


class ResourceExhausted(SigngateError):
    """A quota or a rate is used up; `quota` and `retry_after` tell which and until when."""

    status = "RESOURCE_EXHAUSTED"
    reason = "RESOURCE_EXHAUSTED"
    message = "A limit has been reached."


class Cancelled(SigngateError):
    """The caller went away before the answer."""

    status = "CANCELLED"
    reason = "CANCELLED"
    message = "The request was cancelled."


class DeadlineExceeded(SigngateError):
    """The caller's deadline passed; whether the work was done is not known to the caller."""

    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"
    message = "The deadline passed before the work was done."


class Unimplemented(SigngateError):
    """The server does not offer what was asked."""

    status = "UNIMPLEMENTED"
    reason = "UNIMPLEMENTED"
    message = "This is not offered here."


class Unavailable(SigngateError):
    """A dependency, or this server, cannot serve now. Safe to retry after `retry_after`."""

    status = "UNAVAILABLE"
    reason = "UNAVAILABLE"
    message = "The service is not available right now. Try again shortly."


class Internal(SigngateError):
    """A bug. The caller gets the request id to quote and nothing else."""

    status = "INTERNAL"
    reason = "INTERNAL"
    message = "Something went wrong on our side."


BY_STATUS: Mapping[str, type[SigngateError]] = {
    kind.status: kind
    for kind in (
        InvalidArgument,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Aborted,
        ResourceExhausted,
        Cancelled,
        DeadlineExceeded,
        Unimplemented,
        Unavailable,
        Internal,
    )
}
"""From a gRPC status name to the class of the tree that stands for it."""
