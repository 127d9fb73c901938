"""The unmodified `supabase-auth` client from PyPI, through the edge, over every flow it has for e-mail."""

from __future__ import annotations

import ast

import pytest

from tests.conformance.conftest import HERE, outcomes_of
from tests.conftest import Running
from tests.environments import environment

DRIVER = HERE / "supabase_auth_driver.py"


def flows() -> list[str]:
    """The names in the driver's FLOWS: read, not imported, for its imports are not ours."""
    tree = ast.parse(DRIVER.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
            names = [element.id for element in node.value.elts if isinstance(element, ast.Name)]
            if names and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "FLOWS":
                return names
    raise AssertionError("the driver has no FLOWS")


@pytest.fixture(scope="session")
def outcomes(running: Running, service_role: str) -> dict[str, str]:
    """One process runs all flows. It runs elsewhere, so that nothing of ours can be imported."""
    python = environment(HERE / "supabase_auth.lock")
    url, mails = f"{running.edge_url}/auth/v1", str(running.mail_folder)
    return outcomes_of([str(python), str(DRIVER), url, mails, service_role], python.parent)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("flow", flows())
def test_flow(outcomes: dict[str, str], flow: str) -> None:
    assert outcomes[flow] == ""


def test_every_flow_that_ran_was_looked_at(outcomes: dict[str, str]) -> None:
    assert sorted(outcomes) == sorted(flows())
