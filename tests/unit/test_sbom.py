"""The bills of materials name all that the locks name, and are what CycloneDX says they are."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tools import sbom

PYTHON = sbom.python()
CONSOLE = sbom.console()
both = pytest.mark.parametrize("document", [PYTHON, CONSOLE], ids=["python", "console"])


def components(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["name"], one["version"]): one for one in document["components"]}


def test_every_locked_python_package_is_in_it_with_every_hash() -> None:
    lock = sbom.LOCK.read_text(encoding="utf-8").replace("\\\n", " ")
    locked = {
        (found[1], found[2]): set(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
        for line in lock.splitlines()
        if (found := re.match(r"([a-z0-9-]+)==(\S+)", line))
    }
    assert len(locked) > 100
    assert {
        name: {one["content"] for one in component["hashes"]}
        for name, component in components(PYTHON).items()
    } == locked


def test_every_locked_package_of_the_console_is_in_it_with_its_hash() -> None:
    packages = json.loads((sbom.CONSOLE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    locked = {
        (entry.get("name", path.rpartition("node_modules/")[2]), entry["version"])
        for path, entry in packages.items()
        if path
    }
    assert len(locked) > 20
    assert components(CONSOLE).keys() == locked
    assert all(one["hashes"] for one in components(CONSOLE).values())


@both
def test_nearly_all_have_a_licence_and_all_a_package_url(document: dict[str, Any]) -> None:
    """Those without are not installed on this machine, or declare none."""
    assert all(one["purl"].startswith("pkg:") for one in document["components"])
    licensed = [one for one in document["components"] if one.get("licenses")]
    assert len(licensed) > 0.9 * len(document["components"])


@both
def test_it_is_valid(document: dict[str, Any]) -> None:
    assert sbom.faults(document) == ""


def test_one_that_is_not_valid_is_seen() -> None:
    spoiled = json.loads(json.dumps(PYTHON))
    spoiled["components"][0]["hashes"][0]["alg"] = "ROT-13"
    assert "ROT-13" in sbom.faults(spoiled)


@both
def test_the_same_locks_give_the_same_file(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    assert "timestamp" not in text
    assert "serialNumber" not in text
    assert text == json.dumps(sbom.python() if document is PYTHON else sbom.console())
