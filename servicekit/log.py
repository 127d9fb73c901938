"""JSON lines on standard output, one an event, with the request id; no secret survives to be written.

Fields of every line: `ts` (UTC, ISO 8601), `level`, `service`, `event`, `request_id` inside a call,
`trace_id` where that call is traced, then the event's own. The standard library's loggers (grpc, asyncpg,
uvicorn) come out the same way. Redaction is the *last* defence: code must not log secrets in the first
place.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

from servicekit import context, tracing
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
_secret_value = re.compile(
    r"""
      sgk_[A-Za-z0-9_-]+                                      # an API key, or most of one
    | eyJ[\w-]+\.[\w-]+\.[\w-]*                               # a JWT
    | (?<=://)[^\s/@:]*:[^\s/@]*(?=@)                         # user:password in a URL
    | [\w.+-]+@[\w-]+(?:\.[\w-]+)+                            # an e-mail address
    | (?<=bearer\s)[\w.~+/=-]{8,}                             # whatever follows Bearer
    | (?<=password=)[^\s&]+
    """,
    re.IGNORECASE | re.VERBOSE,
)


def redact_text(text: str) -> str:
    """The text with everything shaped like a key, token, password or e-mail address masked."""
    return _secret_value.sub(MASK, text)


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: masks by the field's name, then by the value's shape, at any depth."""
    for name, value in event.items():
        event[name] = _redact_field(name, value)
    return event


def _redact_field(name: str, value: object) -> object:
    if name not in _safe_names and _secret_name.search(name) and not isinstance(value, (int, float)):
        return MASK
    return _redact_value(value)


def _redact_value(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return {str(k): _redact_field(str(k), v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_redact_value(item) for item in value]
    return redact_text(value if isinstance(value, str) else str(value))


def _add_ids(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if rid := context.request_id():
        event.setdefault("request_id", rid)
    if trace_id := tracing.trace_id():
        event["trace_id"] = trace_id
    return event


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
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                redact,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
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
