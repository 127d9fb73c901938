"""Each promise of SECURITY.md names a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WHOLE = (ROOT / "SECURITY.md").read_text("utf-8")
PROMISED = WHOLE.partition("\n## What Signgate promises")[2]
NAMED = re.findall(r"`((?:tests|db/tests)/[\w/]+\.py)(?:::(\w+))?`", WHOLE)


@pytest.mark.parametrize(("path", "name"), NAMED)
def test_it_is_there(path: str, name: str) -> None:
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert not name or name in functions


def test_every_promise_names_one() -> None:
    promises = re.findall(r"^\| (?!promise|---)(.+) \|$", PROMISED, re.MULTILINE)
    assert promises
    assert [promise for promise in promises if "tests/" not in promise] == []


def test_what_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(([\w./-]+)\)", WHOLE)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
