"""JSON lines on standard output, one an event, with the request id; no secret survives to be written.

Fields of every line: `ts` (UTC, ISO 8601), `level`, `service`, `event`, `request_id` inside a call,
`trace_id` where that call is traced, then the event's own. Libraries' loggers (grpc, asyncpg, uvicorn) come
out the same way, with the name of the logger, but without what they quote: see `servicekit.foreign`. The same
goes for exceptions, whose tracebacks have no text that may be a caller's. Redaction is the *last* defence:
code must not log secrets in the first place.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
from collections.abc import MutableMapping
from contextlib import suppress
from itertools import islice
from typing import Any, Final, TextIO

from servicekit import context, foreign, tracing
from servicekit.lean import absent

# structlog draws tracebacks with rich, and keeps greenlets apart, wherever those are installed, as with the
# local stack: seven megabytes in every process, for what is not used here.
with absent("rich", "greenlet"):
    import structlog

MASK: Final = "[redacted]"

_secret_name = re.compile(
    r"password|passwd|secret|token|authorization|api[_-]?key$|credential|pepper|cookie|e?mail$|dsn",
    re.IGNORECASE,
)
# Names that match the above and are known to be harmless.
_safe_names = frozenset({"api_key_id", "key_id", "token_type"})
# Both are linear in the text: a repetition is possessive, and none begins within what it would repeat, or a
# line of n letters would be read n times over. Two passes, for an address may begin in what the first masks.
_secret_value = re.compile(
    r"""
      sgk_[A-Za-z0-9_-]++                                     # an API key, or most of one
    | (?<![\w-])(?=[\w-]*?eyJ)[\w-]++\.[\w-]++\.[\w-]*+       # a JWT, whatever is written before it
    | (?<=://)[^\s/@:]*+:[^\s/@]*+(?=@)                       # user:password in a URL
    | (?<=bearer\s)[\w.~+/=-]{8,}+                            # whatever follows Bearer
    | (?<=password=)[^\s&]++
    """,
    re.IGNORECASE | re.VERBOSE,
)
_address = re.compile(r"(?:\[redacted\]|(?<![\w.+-])[\w.+-]++)@[\w-]++(?:\.[\w-]++)++")

MAX_TEXT: Final = 8 * 1024
"""Characters of one value in a line: of a longer one the beginning and the end are kept."""
_read: Final = 8 * MAX_TEXT
_tail: Final = MAX_TEXT // 4
MAX_ITEMS: Final = 200
MAX_DEPTH: Final = 8
"""Of a list or dictionary in a line."""
_cut: Final = "[cut]"


def redact_text(text: str) -> str:
    """The text with everything shaped like a key, token, password or e-mail address masked.

    Takes time in proportion to the text, and returns at most `MAX_TEXT` characters.
    """
    whole = len(text) <= _read
    if not whole:
        # What is cut through may have lost its shape: the last word goes.
        text = text[:_read].rpartition(" ")[0]
    found = _address.sub(MASK, _secret_value.sub(MASK, text))
    if len(found) > MAX_TEXT:
        return f"{found[: MAX_TEXT - _tail - len(_cut)]}{_cut}{found[-_tail:]}"
    return found if whole else found[: MAX_TEXT - len(_cut)] + _cut


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: masks by the field's name, then by the value's shape, at any depth."""
    for name, value in event.items():
        event[name] = _redact_field(name, value)
    return event


def _redact_field(name: str, value: object, depth: int = 0) -> object:
    if name not in _safe_names and _secret_name.search(name) and not isinstance(value, (int, float)):
        return MASK
    return _redact_value(value, depth)


def _redact_value(value: object, depth: int) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (dict, list, tuple, set, frozenset)):
        if depth >= MAX_DEPTH:
            return _cut
        if isinstance(value, dict):
            pairs = islice(value.items(), MAX_ITEMS)
            return {_redact_name(k): _redact_field(str(k), v, depth + 1) for k, v in pairs}
        return [_redact_value(item, depth + 1) for item in islice(value, MAX_ITEMS)]
    if isinstance(value, BaseException):
        value = foreign.told(value)
    return redact_text(value if isinstance(value, str) else str(value))


def _redact_name(name: object) -> str:
    return redact_text(str(name))


def _add_ids(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if rid := context.request_id():
        event.setdefault("request_id", rid)
    if trace_id := tracing.trace_id():
        event["trace_id"] = trace_id
    return event


def _tell_exceptions(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """In the place of structlog's own, whose tracebacks have the exceptions' texts."""
    error = foreign.failed(event.pop("exc_info", None))
    if error is not None:
        event["exception"] = foreign.trace(error)
    return event


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Takes from a library's record what may not be written, before anything is made of it."""

    def format(self, record: logging.LogRecord) -> str:
        if not hasattr(record, "_logger"):  # which structlog adds to ours
            harmless = {
                "msg": foreign.message(record),
                "args": (),
                "stack_info": None,
                "exc_text": None,
            }
            record = logging.makeLogRecord(record.__dict__ | harmless)
        return super().format(record)


class _Handler(logging.StreamHandler[TextIO]):
    """Says that a line could not be written, where logging would print what was to stand in it, unmasked."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """See `logging.Handler.handleError`."""
        error = sys.exc_info()[1]
        line = {"level": "error", "event": "a line of the log could not be written", "logger": record.name}
        with suppress(Exception):
            self.stream.write(json.dumps(line | {"cause": type(error).__name__}) + self.terminator)
            self.flush()


def _add_logger(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = event["_record"]
    event["logger"], event["at"] = record.name, f"{record.module}:{record.lineno}"
    return event


class _NotOfCallers(logging.Filter):
    """Drops what any caller can have written as often as they like, and that tells an operator nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.msg != "Invalid encoding on %s"


def catch_all() -> None:
    """Have what Python would print of exceptions that were caught by no one logged. For processes."""

    def lost(what: str, error: BaseException | None) -> None:
        get("python").error(what, exc_info=error)

    sys.excepthook = lambda _kind, error, _trace: lost("an exception ended the process", error)
    threading.excepthook = lambda given: lost("an exception ended a thread", given.exc_value)
    sys.unraisablehook = lambda given: lost("an exception could not be raised", given.exc_value)


def configure(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Set up logging for this process. Call once, before anything logs."""
    number = logging.getLevelNamesMapping()[level.upper()]

    def add_service(
        _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        add_service,
        _add_ids,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream or sys.stdout)
    handler.setFormatter(
        _Formatter(
            foreign_pre_chain=[*shared, _add_logger],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _tell_exceptions,
                redact,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    undecodable = logging.getLogger("grpc._cython.cygrpc")
    undecodable.filters[:] = [_NotOfCallers()]
    # These tell of every request or every reconnect at INFO.
    for chatty in ("uvicorn.access", "uvicorn.error", "grpc._cython.cygrpc", "asyncio"):
        logging.getLogger(chatty).setLevel(max(number, logging.WARNING))


def debugging() -> bool:
    """Whether lines of level `debug` are written: for whoever wraps calls to tell of each."""
    return logging.getLogger().isEnabledFor(logging.DEBUG)


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose lines carry `component: name`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(name, component=name)
    return logger
