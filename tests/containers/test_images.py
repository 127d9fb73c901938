"""What is in the images, and as whom it runs. Their base is a stand-in where no registry was asked."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Final

import pytest

from deploy.local.layout import ROOT
from tests.containers import standins
from tests.containers.stack import SERVICES, Stack

pytestmark = pytest.mark.timeout(900)

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LARGEST = 135_000_000
"""Bytes that an image may have beyond its base."""
PARQUET = 200_000_000
"""And the logger beyond that, for the files that it exports."""


BROUGHT_ALONG: Final = {"idna"}
"""Required by auth itself, and by packages that other services require (httpx)."""


def plain(name: str) -> str:
    """A distribution's name as packaging compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {plain(match.group()) for text in requirements if (match := re.match(r"[\w.-]+", text))}


def installed(images: Stack, service: str) -> dict[str, str]:
    """Version by distribution."""
    code = "from importlib.metadata import distributions as d; import json;"
    code += "print(json.dumps({one.name: one.version for one in d()}))"
    command = ["run", "--rm", "--network=none", f"signgate/{service}:test", "python", "-c", code]
    return {plain(name): version for name, version in json.loads(images.engine.run(*command)).items()}


@pytest.mark.parametrize("service", SERVICES)
def test_only_that_services_packages_are_installed_as_they_are_locked(images: Stack, service: str) -> None:
    extras = PROJECT["optional-dependencies"]
    own = names(PROJECT["dependencies"] + extras[service] + extras["trace"])
    others = {name for other in SERVICES for name in names(extras[other])} | names(extras["websdk"])
    others -= BROUGHT_ALONG
    found = installed(images, service)
    assert own <= found.keys()
    assert not (others - own) & found.keys()
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert found.pop("signgate") == PROJECT["version"]
    for name, version in found.items():
        assert re.search(rf"^{re.escape(name)}=={re.escape(version)} ", lock, re.MULTILINE)


@pytest.mark.parametrize("service", [*SERVICES, "edge", "tools"])
def test_an_image_runs_as_nobody_says_what_it_is_and_is_small(images: Stack, service: str) -> None:
    (image,) = json.loads(images.engine.run("image", "inspect", f"signgate/{service}:test"))
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["Labels"]["org.opencontainers.image.title"].startswith("Signgate ")
    assert image["Config"]["Healthcheck"]["Test"]
    base = standins.images()["envoy" if service == "edge" else "python"]
    (under,) = json.loads(images.engine.run("image", "inspect", base))
    assert image["RootFS"]["Layers"][: len(under["RootFS"]["Layers"])] == under["RootFS"]["Layers"]
    assert image["Size"] - under["Size"] < LARGEST + (PARQUET if service == "logger" else 0)


def test_an_image_has_no_secret_and_no_tool_to_install_with(images: Stack) -> None:
    look = "ls -A /opt/signgate/bin /opt/signgate/tools/deploy /run"
    told = images.engine.run("run", "--rm", "--network=none", "signgate/tools:test", "sh", "-c", look)
    assert "dbmate" in told.split()
    assert not set(told.split()) & {"pip", "uv", "compose", "secrets"}
