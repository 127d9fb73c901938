"""What a mail and the memory of known clients call a program."""

from __future__ import annotations

import pytest

from services.auth.programs import UNKNOWN, program

SAFARI = "Mozilla/5.0 ({}) AppleWebKit/605.1.15 (KHTML, like Gecko) {} Safari/605.1.15"


@pytest.mark.parametrize(
    ("user_agent", "called"),
    [
        (SAFARI.format("Windows NT 10.0; Win64; x64", "Chrome/140.0.0.0"), "Chrome on Windows"),
        (SAFARI.format("Windows NT 10.0; Win64; x64", "Chrome/140.0.0.0") + " Edg/140.0", "Edge on Windows"),
        (SAFARI.format("Macintosh; Intel Mac OS X 10_15_7", "Version/26.0"), "Safari on macOS"),
        (SAFARI.format("iPhone; CPU iPhone OS 26_0", "CriOS/140.0"), "Chrome on iOS"),
        (SAFARI.format("Linux; Android 15", "Chrome/140.0.0.0 Mobile"), "Chrome on Android"),
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        ("python-httpx/0.28.1", "a Python program"),
        ("grpc-python-asyncio/1.76.0 grpc-c/51.0.0 (linux; chttp2)", "a gRPC client"),
        ("node", "a Node.js program"),
        ("curl/8.5.0", "curl"),
        ("", UNKNOWN),
        ("<a href=https://evil.example>click</a>", UNKNOWN),
    ],
)
def test_a_user_agent_has_one_of_our_names(user_agent: str, called: str) -> None:
    assert program(user_agent) == called
