"""The Dockerfile's targets, and what they are built from."""

from __future__ import annotations

import re
from functools import cache

from deploy.local.layout import ROOT

BROWSERS = re.compile(r"\b(chromium|chrome|firefox|webkit)\b(?!\.)", re.IGNORECASE)


@cache
def stages() -> dict[str, tuple[str, str]]:
    """What a target is built on, and its own instructions, by its name."""
    text = (ROOT / "deploy/docker/Dockerfile").read_text(encoding="utf-8")
    found = re.findall(r"^FROM (\S+) AS (\S+)\n(.*?)(?=^FROM |\Z)", text, re.MULTILINE | re.DOTALL)
    return {name: (base, _instructions(body)) for base, name, body in found}


def with_a_browser() -> set[str]:
    """Targets whose images have a browser in them, by themselves or by what they are built on."""
    found: set[str] = set()
    for name, (base, body) in stages().items():
        # What another stage installed comes along where it is copied from.
        copied = set(re.findall(r"--from=(\S+)", body))
        if (
            base in found
            or copied & found
            or any("install" in line and BROWSERS.search(line) for line in body.split("\n"))
        ):
            found.add(name)
    return found


def _instructions(body: str) -> str:
    lines = [line for line in body.splitlines() if not line.startswith("#")]
    return "\n".join(lines).replace("\\\n", " ")
