"""The browser engine in containers: Chromium beside the product, apart from everything that is secret."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from signgate_client import Signgate, SigngateError
from tests.chaos.system import User
from tests.containers.stack import Stack
from tests.integration.engines.standin import SCRIPT, sha256

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def browsing(stack: Stack) -> Iterator[Stack]:
    """The stack with websdk.yaml on top; afterwards it is again what it was."""
    told = {"SIGNGATE_WEBSDK_SCRIPT": str(SCRIPT), "SIGNGATE_WEBSDK_SCRIPT_SHA256": sha256(SCRIPT)}
    made = replace(stack, browser=told)
    made.compose("build", "--quiet", "signer", "browser", seconds=900)
    made.up()
    yield made
    stack.up("--remove-orphans")


@pytest.fixture(scope="module")
def key(browsing: Stack) -> str:
    return browsing.sign_up(User(f"browser-{uuid.uuid4().hex[:8]}")).key


def signs(stack: Stack, key: str, seconds: float) -> None:
    """Return when the engine has signed. Fails after so many seconds."""
    end = time.monotonic() + seconds
    with Signgate(stack.edge, api_key=key) as caller:
        while True:
            try:
                signature = caller.sign("@containers", engine="websdk")
            except SigngateError:
                assert time.monotonic() < end, stack.compose("logs", "--tail", "20", "browser", "signer")
                time.sleep(0.5)
            else:
                assert signature.engine.name == "websdk"
                assert "X-Bogus=" in signature.signed_url
                return


def test_it_signs_by_a_browser_of_another_container(browsing: Stack, key: str) -> None:
    signs(browsing, key, 60)
    (signer,) = browsing.containers("signer")
    (image,) = json.loads(browsing.engine.run("image", "inspect", "signgate/browser:test"))
    assert image["Config"]["User"] == "10001:10001"
    names = "chromium chrome headless_shell firefox"
    look = f"for name in {names}; do find / -xdev -type f -perm -1 -name $name 2>/dev/null; done; true"
    assert browsing.execute(signer, "sh", "-c", look).strip() == "", "the signer's image has no browser"


def test_the_browsers_container_has_nothing_that_is_secret_and_no_rights(browsing: Stack) -> None:
    (container,) = browsing.containers("browser")
    facts = browsing.inspect(container)
    assert facts["Mounts"] == []
    assert not [line for line in facts["Config"]["Env"] if line.startswith("SIGNGATE_")]
    assert facts["HostConfig"]["ReadonlyRootfs"]
    assert facts["HostConfig"]["CapDrop"] == ["ALL"]
    assert browsing.execute(container, "sh", "-c", "ls -A /run/secrets 2>/dev/null; echo").strip() == ""
    status = browsing.execute(container, "cat", "/proc/1/status")
    assert "\nCapEff:\t0000000000000000\n" in status
    assert "\nNoNewPrivs:\t1\n" in status


def test_it_reaches_no_store_no_service_but_the_signer_and_nothing_outside(browsing: Stack) -> None:
    (browser,) = browsing.containers("browser")

    def reaches(host: str, port: int) -> bool:
        script = f"timeout 2 bash -c 'exec 3<>/dev/tcp/{host}/{port}' 2>/dev/null && echo yes || echo no"
        return browsing.execute(browser, "bash", "-c", script).strip() == "yes"

    assert reaches("127.0.0.1", 7401)
    for service, port in {"redis": 6379, "postgres": 5432, "keys": 7102, "envoy": 8080}.items():
        (container,) = browsing.containers(service)
        assert not reaches(service, port)
        assert not reaches(browsing.address(container), port)
    assert not reaches("192.0.2.1", 443)


def test_killed_it_comes_back_and_the_engine_signs_again(browsing: Stack, key: str) -> None:
    signs(browsing, key, 60)
    (browser,) = browsing.containers("browser")
    browsing.execute(
        browser,
        "bash",
        "-c",
        "for p in /proc/[0-9]*; do grep -lq chromium $p/comm 2>/dev/null && kill -9 ${p#/proc/}; done; true",
    )
    signs(browsing, key, 60)
    assert browsing.inspect(browser)["RestartCount"] >= 1
