"""Log lines: JSON with the request id, and no secret survives to be written."""

import io
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from servicekit import context, log

SECRETS = [
    "sgk_live_7n42DGM5Tflk9n8mt7Fhc7xyzxyzxyzxyz",
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "someone@example.com",
    "postgres://signgate_keys:hunter2@db/signgate",
]


@pytest.fixture
def lines() -> Iterator[Any]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    stream = io.StringIO()
    log.configure("keys", "info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def test_a_line_says_when_who_and_what(lines: Any) -> None:
    log.get("store").info("key created", key_id="k1")
    (line,) = lines()
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "info",
        "service": "keys",
        "component": "store",
        "event": "key created",
        "key_id": "k1",
    }


def test_the_request_id_of_the_call_is_on_every_line(lines: Any) -> None:
    token = context.enter(context.CallContext("request-1"))
    log.get("a").info("one")
    logging.getLogger("asyncpg").warning("two")
    context.leave(token)
    assert [line["request_id"] for line in lines()] == ["request-1", "request-1"]


def test_levels_below_the_configured_one_are_dropped(lines: Any) -> None:
    log.get("a").debug("quiet")
    logging.getLogger("b").debug("quiet")
    assert lines() == []


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_in_values_messages_and_tracebacks_are_masked(lines: Any, secret: str) -> None:
    logger = log.get("a")
    logger.info("message %s", secret, plain=secret, nested={"list": [secret, {"deep": (secret,)}]})
    logging.getLogger("driver").error("from a driver: %s", secret)
    try:
        raise ValueError(secret)
    except ValueError:
        logger.exception("failed")
    text = json.dumps(lines())
    assert len(lines()) == 3
    assert secret not in text
    assert "hunter2" not in text
    assert log.MASK in text


def test_fields_with_a_secret_name_are_masked_whatever_their_value(lines: Any) -> None:
    log.get("a").info("x", password="abc", refresh_token="abc", headers={"Authorization": "abc"})
    assert "abc" not in json.dumps(lines())


def test_ids_and_counts_stay_readable(lines: Any) -> None:
    log.get("a").info(
        "x", api_key_id="k1", token_type="bearer", tokens=5, url="https://www.tiktok.com/@bob/live"
    )
    (line,) = lines()
    assert (line["api_key_id"], line["token_type"], line["tokens"]) == ("k1", "bearer", 5)
    assert line["url"] == "https://www.tiktok.com/@bob/live"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("sgk_live_abc.def@example.com", "[redacted][redacted]"),
        ("x sgt_eyJhbGciOi.eyJzdWIi.c2ln y", "x [redacted] y"),
        ("token=Zm9veyJhbGciOi.eyJzdWIi. y", "token=[redacted] y"),
        ("postgres://u:p:a+ss@db.example.com/x", "postgres://[redacted]/x"),
        ("to ann+x@a.b-c.example, bob@example.com", "to [redacted], [redacted]"),
        ("Bearer abcdefgh12345", "Bearer [redacted]"),
        ("a@b eyJ.x @ :// eyJa.b", "a@b eyJ.x @ :// eyJa.b"),
    ],
)
def test_what_stands_beside_a_secret_does_not_hide_it(text: str, kept: str) -> None:
    assert log.redact_text(text) == kept


ENDLESS = [
    "a",
    "a.",
    "eyJ",
    "eyJ.",
    "a@",
    "@",
    "://",
    "://a:",
    "sgk_",
    "password=",
    "bearer ",
    "[redacted]",
    "é",
]


@pytest.mark.parametrize("unit", ENDLESS)
def test_redaction_takes_time_in_proportion(unit: str) -> None:
    """One line of a stranger's letters must not stop the process that writes it."""

    def cost(length: int) -> float:
        text = unit * (length // len(unit))
        times = []
        for _ in range(5):
            began = time.process_time()
            log._address.sub("", log._secret_value.sub("", text))
            times.append(time.process_time() - began)
        return min(times)

    # Where the square of it is taken, four times as much, and some seconds at this length.
    assert cost(128 * 1024) < max(3 * cost(64 * 1024), 0.05)


def test_a_long_value_keeps_its_beginning_and_its_end_and_no_half_of_a_secret() -> None:
    long = log.redact_text("begin " + "x" * 20_000 + " someone@example.com end")
    assert len(long) <= log.MAX_TEXT
    assert long.startswith("begin ")
    assert long.endswith("[redacted] end")
    token = "eyJ" + "a" * 100 + "." + "b" * 100_000
    assert "eyJ" not in log.redact_text(f"begin {token}.c")
    assert len(log.redact_text("word " * 100_000)) <= log.MAX_TEXT


def test_deep_and_long_structures_are_cut(lines: Any) -> None:
    deep: Any = "x"
    for _ in range(50):
        deep = [deep]
    log.get("a").info("x", deep=deep, many=list(range(10_000)), named={f"k{n}": n for n in range(10_000)})
    (line,) = lines()
    assert len(line["many"]) == len(line["named"]) == log.MAX_ITEMS
    assert "[cut]" in json.dumps(line["deep"])


def test_an_address_as_a_dictionary_s_key_is_masked(lines: Any) -> None:
    log.get("a").info("x", by={"ann@example.com": 1})
    assert "ann@" not in json.dumps(lines())
