"""What may be written of texts that are not ours: libraries' log records, and exceptions.

A library quotes what it was given: gRPC a header that it can't decode, a parser the line that it can't
read. A secret in there may be damaged, so it can't be known by its shape. So only what can't hold a caller's
bytes is written: texts that stand as they are in the code that logs or raises, and the texts of the few kinds
of exceptions listed here. Of all else the log says where it came from, and its class.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from types import CodeType
from typing import Any, Final

OURS: Final = frozenset({"deploy", "services", "servicekit"})
_about_code: Final = (
    AssertionError,
    AttributeError,
    ImportError,
    IndexError,
    MemoryError,
    NameError,
    NotImplementedError,
    OSError,  # addresses, files and the system's own words
    RecursionError,
    TypeError,
)
_about_connections: Final = frozenset(
    {
        "redis.exceptions.AuthenticationError",
        "redis.exceptions.ConnectionError",
        "redis.exceptions.ReadOnlyError",
        "redis.exceptions.TimeoutError",
        "asyncpg.exceptions._base.InterfaceError",
    }
)
_python: Final = frozenset({"builtins", "socket", "ssl", "asyncio.exceptions"})
_about_values: Final = ("22", "23")
"""Classes of SQLSTATE whose messages quote values."""
_deepest: Final = 8
_most_groups: Final = 10

HIDDEN: Final = "a library's message"


def told(error: BaseException) -> str:
    """An exception as it may be logged: its class, and its text if that can't quote a caller."""
    name, text = type(error).__name__, _text(error)
    return f"{name}({text!r})" if text else name


def trace(error: BaseException) -> str:
    """A traceback like Python's own, with `told` in place of the exceptions' texts."""
    return "".join(_trace(error, set(), 0)).rstrip("\n")


def message(record: logging.LogRecord) -> str:
    """What is written of a record that a library made: its template, without what it would be filled with."""
    template = record.msg
    if not isinstance(template, str):
        return HIDDEN
    if record.name == "asyncio":  # the first line says what happened, the others show objects
        return template.partition("\n")[0] if not record.args else HIDDEN
    code = _code_of(record)
    return template.strip() if code is not None and _has(code, template) else HIDDEN


def _text(error: BaseException) -> str:
    module = type(error).__module__
    if module.startswith("asyncpg.") and (status := getattr(error, "sqlstate", None)):
        quotes = str(status).startswith(_about_values)
        return str(status) if quotes else f"{status} {getattr(error, 'message', None) or ''}"
    if module == "grpc.aio._call" and hasattr(error, "details"):
        return f"{error.code().name}: {error.details()}"  # type: ignore[attr-defined]
    return str(error) if _harmless(error, module) else ""


def _harmless(error: BaseException, module: str) -> bool:
    if module.partition(".")[0] in OURS or f"{module}.{type(error).__qualname__}" in _about_connections:
        return True
    if isinstance(error, UnicodeError):
        return False
    if module in _python and isinstance(error, (*_about_code, BaseExceptionGroup)):
        return True
    raised = error.__traceback__
    while raised is not None and raised.tb_next is not None:
        raised = raised.tb_next
    return raised is not None and len(error.args) == 1 and _has(raised.tb_frame.f_code, str(error.args[0]))


def _trace(error: BaseException, seen: set[int], depth: int) -> Iterator[str]:
    if id(error) in seen or depth > _deepest:
        return
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _trace(before, seen, depth + 1)
        yield "\nwhich led to:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    kind, text = type(error), _text(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    yield f"{name}: {text}\n" if text else f"{name}\n"
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions[:_most_groups]:
            yield from _trace(each, seen, depth + 1)


def _code_of(record: logging.LogRecord) -> CodeType | None:
    """The code that is making this record right now, further up the stack."""
    frame = sys._getframe(1)  # noqa: SLF001  # as logging itself does to find its caller
    while frame is not None:
        code = frame.f_code
        if code.co_filename == record.pathname and code.co_name == record.funcName:
            return code
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _has(code: CodeType, text: str) -> bool:
    return text in (constant for constant in code.co_consts if isinstance(constant, str))


def failed(info: Any) -> BaseException | None:
    """The exception of an `exc_info` in any of the forms that loggers take."""
    if isinstance(info, BaseException):
        return info
    if isinstance(info, tuple):
        return info[1] if isinstance(info[1], BaseException) else None
    return sys.exc_info()[1] if info else None
