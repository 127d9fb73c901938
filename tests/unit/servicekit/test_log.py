"""Log lines: JSON with the request id, and no secret survives to be written."""

import io
import json
import logging
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
