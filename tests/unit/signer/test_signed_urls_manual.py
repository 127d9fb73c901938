"""docs/signed-urls.md is what others build on: its vectors are what the engine makes, its code works."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from servicekit.keyset import KeySet, SigningKey
from servicekit.testing.clock import ManualClock
from services.signer.domain import Algorithm, Signed, SignRequest
from services.signer.engines.native import NativeEngine
from services.signer.engines.signing_keys import SigningKeys
from services.signer.room_url import parse

MANUAL: Final = (Path(__file__).parents[3] / "docs" / "signed-urls.md").read_text(encoding="utf-8")
SIGNED_AT: Final = 1767323045
SECRET: Final = bytes(range(32))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", MANUAL, re.MULTILINE | re.DOTALL)


VECTORS: Final = [block.strip() for block in blocks("vector")]
ED25519_VECTORS: Final = [url for url in VECTORS if "sg_kid=ed-1" in url]
JWKS: Final[dict[str, Any]] = json.loads(blocks("json")[0])


@pytest.fixture
def engine() -> NativeEngine:
    """An engine with the manual's keys, at the manual's time."""
    seed = re.search(r"seed `([0-9a-f]{64})`", MANUAL)
    assert seed is not None
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed[1]))
    keys = KeySet(
        (SigningKey("ed-1", "EdDSA", 0, 0, None, private), SigningKey("hs-1", "HS256", 0, 0, None, SECRET))
    )
    return NativeEngine(SigningKeys(lambda: keys), ManualClock(datetime.fromtimestamp(SIGNED_AT, UTC)))


@pytest.fixture(scope="module")
def documented() -> dict[str, Callable[..., Any]]:
    """The functions that the manual's Python defines."""
    scope: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "signed-urls.md", "exec"), scope)  # noqa: S102  # our own manual
    return scope


async def test_the_vectors_are_what_the_engine_makes(engine: NativeEngine) -> None:
    await engine.start()
    await engine.canary()
    request_id = "019b7c5e-4d88-7000-8000-0123456789ab"
    endpoint = "https://webcast.tiktok.com/webcast/im/fetch/?aid=1988&room_id=7300000000000000000"
    requests = [
        SignRequest(parse("@example.name"), request_id, ttl=300),
        SignRequest(parse(endpoint), request_id, ttl=300, platform_tokens=True),
        SignRequest(parse("@example.name"), request_id, ttl=300, algorithm=Algorithm.HMAC_SHA256),
    ]
    results = await engine.sign(requests)
    assert [result.signed_url for result in results if isinstance(result, Signed)] == VECTORS
    assert engine.published_jwks() == JWKS


@pytest.mark.parametrize("url", ED25519_VECTORS)
def test_the_python_check(url: str, documented: dict[str, Callable[..., Any]]) -> None:
    check = documented["check"]
    assert check(url, JWKS, SIGNED_AT) == ""
    assert check(url, JWKS, SIGNED_AT + 299.9) == ""
    assert check(url, JWKS, SIGNED_AT + 300) == "EXPIRED"
    assert check(url, {"keys": []}, SIGNED_AT) == "UNKNOWN_KEY"
    assert check(url.replace("tiktok", "tiktak"), JWKS, SIGNED_AT) == "BAD_SIGNATURE"
    assert check(url.replace("sg_exp=1", "sg_exp=2"), JWKS, SIGNED_AT) == "BAD_SIGNATURE"
    for broken in (url + "&a=1", url + "\n", url + "=", url.replace("sg_v=1", "sg_v=2"), "", "&sg_sig="):
        assert check(broken, JWKS, SIGNED_AT) == "MALFORMED"


def test_the_hmac_check(documented: dict[str, Callable[..., Any]]) -> None:
    check = documented["check_hmac"]
    [url] = [url for url in VECTORS if "sg_kid=hs-1" in url]
    assert check(url, SECRET)
    assert not check(url, bytes(32))
    assert not check(url.replace("example", "exampel"), SECRET)
    assert not check(url + "A", SECRET)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize("url", ED25519_VECTORS)
def test_the_openssl_check(url: str, tmp_path: Path) -> None:
    [script] = blocks("sh")

    def run(checked: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["sh", "-c", script],
            env={**os.environ, "TMPDIR": str(tmp_path), "x": JWKS["keys"][0]["x"], "url": checked},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    good, forged = run(url), run(url.replace("sg_exp=1", "sg_exp=2"))
    assert (good.returncode, good.stdout.strip()) == (0, "Signature Verified Successfully")
    assert forged.returncode != 0
    assert "Failure" in forged.stdout
