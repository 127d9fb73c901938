"""S24. What libraries say is logged without what they quote, however damaged a secret in it is."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import h11
import pytest
import structlog

import servicekit
from servicekit import foreign, log
from servicekit.errors import Unavailable

CANARY = "k4naryK4naryK4nary"
BROKEN = f"sgk_live_{CANARY}".encode() + b"\xff" + CANARY.encode()
ROOT = Path(servicekit.__file__).parents[1]


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    stream = io.StringIO()
    log.configure("keys", "info", stream)
    yield stream
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    assert CANARY.lower() not in written.getvalue().lower()
    return [json.loads(line) for line in written.getvalue().splitlines()]


def undecodable() -> UnicodeDecodeError:
    try:
        BROKEN.decode()
    except UnicodeDecodeError as error:
        return error
    raise AssertionError


def test_a_library_s_text_is_its_template(written: io.StringIO) -> None:
    library = logging.getLogger("some.library")
    library.warning("Can't read %s", BROKEN, stack_info=True, extra={"header": BROKEN, "header_text": CANARY})
    library.warning("Can't read %(it)s", {"it": BROKEN})
    assert [line["event"] for line in lines(written)] == ["Can't read %s", "Can't read %(it)s"]
    (one, _) = lines(written)
    assert one["logger"] == "some.library"
    assert re.fullmatch(r"test_foreign:\d+", one["at"])
    assert one.keys() == {"event", "level", "ts", "service", "logger", "at"}


@pytest.mark.parametrize("text", [f"Can't read {CANARY}", BROKEN, ValueError(CANARY), {"a": CANARY}])
def test_a_text_that_was_put_together_is_not_written(written: io.StringIO, text: Any) -> None:
    logging.getLogger("some.library").error(text)
    assert lines(written)[0]["event"] == foreign.HIDDEN


def test_grpc_s_word_of_a_header_that_it_can_not_decode_is_dropped(written: io.StringIO) -> None:
    library = logging.getLogger("grpc._cython.cygrpc")
    library.error("Invalid encoding on %s", BROKEN, exc_info=undecodable())
    assert lines(written) == []
    library.error("Something else, of %s", BROKEN)
    assert len(lines(written)) == 1


def test_a_line_that_can_not_be_written_is_told_of_without_what_was_in_it(
    written: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of a surrogate pair, as JSON can spell it, is no UTF-8: logging itself would print all of it."""
    raw = io.BytesIO()
    log.configure("keys", "info", io.TextIOWrapper(raw, "utf-8"))
    log.get("t").info("failed", value=f"\ud800{CANARY}")
    logging.getLogger("some.library").info("failed \ud800 %s", CANARY)
    log.get("t").info("next")
    found = [json.loads(line) for line in raw.getvalue().splitlines()]
    assert [line["event"] for line in found] == [*["a line of the log could not be written"] * 2, "next"]
    assert found[0]["cause"] == "UnicodeEncodeError"
    assert CANARY not in raw.getvalue().decode()
    assert capsys.readouterr() == ("", "")


async def test_asyncio_s_word_of_a_task_that_failed(written: io.StringIO) -> None:
    async def fail(secret: str) -> None:
        raise ValueError(secret)

    loop = asyncio.get_running_loop()
    task = loop.create_task(fail(CANARY))
    await asyncio.wait((task,))
    loop.call_exception_handler(
        {"message": "Task exception was never retrieved", "exception": task.exception(), "future": task}
    )
    (line,) = lines(written)
    assert line["event"] == "Task exception was never retrieved"
    assert "ValueError" in line["exception"]
    assert "raise ValueError(secret)" in line["exception"]


def test_exceptions_of_all_kinds_in_fields_and_tracebacks(written: io.StringIO) -> None:
    def by_h11() -> None:
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(b"GET / HTTP/1.1\r\nx-api-key " + BROKEN + b"\r\n\r\n")
        connection.next_event()

    wrong: list[Callable[[], Any]] = [
        BROKEN.decode,
        lambda: CANARY.encode("utf-16").decode("ascii"),
        f"{CANARY}\ud800".encode,
        lambda: int(CANARY),
        lambda: dict[str, int]()[CANARY],
        lambda: json.loads(f'{{"{CANARY}": \xff'),
        lambda: list[str]().index(CANARY),
        lambda: bytes.fromhex(CANARY),
        by_h11,
        lambda: (_ for _ in ()).throw(asyncpg.exceptions.UniqueViolationError(CANARY)),
        lambda: (_ for _ in ()).throw(asyncpg.exceptions.DataError(CANARY)),
        lambda: (_ for _ in ()).throw(ExceptionGroup("two", [ValueError(CANARY), KeyError(CANARY)])),
    ]
    logger = log.get("t")
    for act in wrong:
        try:
            act()
        except Exception as error:
            logger.warning("failed", cause=error, nested=[error, {"a": error}])
            logger.exception("failed")
            logging.getLogger("some.library").exception("failed")
            try:
                raise Unavailable from error
            except Unavailable:
                logger.exception("failed")
    found = lines(written)
    assert len(found) == 4 * len(wrong)
    assert all(line["event"] == "failed" for line in found)
    assert "UnicodeDecodeError" in found[1]["exception"]
    assert found[0]["cause"] == "UnicodeDecodeError"


def literal() -> ValueError:
    try:
        raise ValueError("as it stands in the code")
    except ValueError as error:
        return error


def test_what_can_quote_nobody_stays_readable() -> None:
    def raised(error: Exception) -> Exception:
        try:
            raise error
        except (OSError, ValueError) as caught:
            return caught

    assert "[Errno 111]" in foreign.told(ConnectionRefusedError(111, "[Errno 111] Connect call failed"))
    assert "refused" in foreign.told(raised(ConnectionRefusedError("refused")))
    assert foreign.told(Unavailable("The store is away.")) == "Unavailable('UNAVAILABLE: The store is away.')"
    assert foreign.told(raised(ValueError("x" * 3))) == "ValueError"
    assert foreign.told(literal()) == "ValueError('as it stands in the code')"
    refused = asyncpg.exceptions.InsufficientPrivilegeError.new({"C": "42501", "M": "denied for table x"})
    assert foreign.told(refused) == "InsufficientPrivilegeError('42501 denied for table x')"


def test_what_python_would_print_of_lost_exceptions_is_a_line_of_the_log(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((sys, "excepthook"), (threading, "excepthook"), (sys, "unraisablehook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    log.catch_all()

    def fail() -> None:
        raise ValueError(CANARY + "!")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()

    class Left:
        def __del__(self) -> None:
            fail()

    Left()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    found = lines(written)
    assert [line["event"] for line in found] == [
        "an exception ended a thread",
        "an exception could not be raised",
        "an exception ended the process",
    ]
    assert all("ValueError" in line["exception"] for line in found)


def test_no_code_of_ours_makes_a_text_of_an_exception_before_the_log_sees_it() -> None:
    """`repr` of a UnicodeError has all the bytes."""
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("services", "servicekit")
        for path in (ROOT / folder).rglob("*.py")
        if "websdk" not in path.parts  # of a browser, which never sees a caller's credential
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"(cause|error|reason)=(repr|str)\((error|failure|exc)", line)
        and path.name not in ("watched.py", "keyset.py", "runner.py")  # errors of our own classes
    ]
    assert wrong == []
