"""The error tree: what is public, and what never is."""

import traceback

import pytest

from servicekit import errors
from servicekit.errors import BY_STATUS, FieldViolation, InvalidArgument, SigngateError, Unauthenticated


class KeyRevoked(Unauthenticated):
    reason = "KEY_REVOKED"
    message = "This API key has been revoked."


def test_a_subclass_states_reason_and_message_once() -> None:
    error = KeyRevoked()
    assert (error.status, error.reason, error.message) == (
        "UNAUTHENTICATED",
        "KEY_REVOKED",
        "This API key has been revoked.",
    )


def test_an_instance_may_say_it_differently_without_touching_the_class() -> None:
    error = KeyRevoked("Gone.", reason="KEY_GONE")
    assert (error.reason, error.message) == ("KEY_GONE", "Gone.")
    assert KeyRevoked().reason == "KEY_REVOKED"


def test_neither_str_nor_repr_shows_metadata_or_cause() -> None:
    error = KeyRevoked(metadata={"hint": "hunter2"})
    error.__cause__ = ValueError("hunter2")
    assert "hunter2" not in str(error) + repr(error)
    assert "KEY_REVOKED" in str(error)
    assert "KEY_REVOKED" in repr(error)


def test_a_field_error_carries_its_violation() -> None:
    error = InvalidArgument.field("items[3].room_url", "is not a LIVE room", "ROOM_URL_INVALID")
    assert error.violations == (
        FieldViolation("items[3].room_url", "is not a LIVE room", "ROOM_URL_INVALID"),
    )
    assert error.reason == "ROOM_URL_INVALID"


def test_again_is_equal_in_all_but_the_traceback() -> None:
    """One failure handed to many waiters must not grow one shared traceback."""
    try:
        raise KeyRevoked("Gone.", metadata={"a": "b"}, retry_after=2.0) from OSError("inside")
    except KeyRevoked as caught:
        error = caught
    twin = error.again()
    assert type(twin) is KeyRevoked
    assert twin is not error
    assert (twin.message, twin.metadata, twin.retry_after) == ("Gone.", {"a": "b"}, 2.0)
    assert twin.__traceback__ is None
    assert isinstance(twin.__cause__, OSError)
    assert traceback.format_exception_only(twin) == traceback.format_exception_only(error)


@pytest.mark.parametrize("kind", BY_STATUS.values())
def test_every_kind_is_found_by_its_own_status(kind: type[SigngateError]) -> None:
    assert BY_STATUS[kind.status] is kind
    assert kind().reason == kind.reason.upper()


def test_every_class_of_the_module_is_in_the_table() -> None:
    kinds = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, SigngateError) and value is not SigngateError
    }
    assert kinds == set(BY_STATUS.values())
