"""The accounts' HTTP face through the edge: whatever its document allows or forbids, no 500."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.auth.http.openapi import OPERATIONS
from tests.conftest import Running
from tests.e2e.conftest import Account

EXAMPLES = 15
"""For each operation, of requests that the document allows and again of those it forbids."""
ENDS_THE_SESSION = {"DELETE /user", "POST /logout", "PUT /user"}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def test_whatever_the_openapi_document_allows_or_forbids_is_no_500(
    running: Running, service_role: str, account: Account, new_account: Callable[[], Account]
) -> None:
    base = f"{running.edge_url}/auth/v1"
    schema: Any = schemathesis.openapi.from_dict(httpx.get(f"{base}/openapi.json").json())
    schema.config.base_url = base
    needs = {f"{operation.method} {operation.path}": operation.needs for operation in OPERATIONS}
    seen: dict[str, set[int]] = {}
    victim = new_account()
    for found in schema.get_all_operations():
        operation = found.ok()
        name = operation.label
        user = new_account() if name in ENDS_THE_SESSION else account
        token = {"admin": service_role, "user": user.session.access_token, "public": ""}[needs[name]]
        cases = [
            case
            for mode in schemathesis.GenerationMode
            for case in generated(operation.as_strategy(generation_mode=mode))
        ]
        if "{user_id}" in name:
            for case in cases[::2]:  # somebody is there
                case.path_parameters["user_id"] = victim.session.user.id
        if name == "POST /signup":
            for case in cases[::2]:  # that it is hard to guess, no schema can say
                if isinstance(case.body, dict) and isinstance(case.body.get("password"), str):
                    case.body["password"] = secrets.token_urlsafe()
        with ThreadPoolExecutor(4) as pool:  # answers are held back for the sake of evenness
            seen[name] = set(pool.map(lambda case, token=token: sent(case, token), cases))
    assert seen.keys() == needs.keys()
    # It was the handlers that answered, and not only somebody in front of them.
    for name in ("GET /user", "GET /admin/users", "GET /admin/users/{user_id}", "POST /otp", "POST /signup"):
        assert 200 in seen[name], (name, seen[name])
    for name in ("POST /token", "POST /verify", "POST /factors", "POST /admin/users"):
        assert seen[name] & {400, 403, 422}, (name, seen[name])


def generated(cases: Any) -> list[Any]:
    """What a strategy gives; the same at every run."""
    kept: list[Any] = []

    @given(case=cases)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def keep(case: Any) -> None:
        kept.append(case)

    with suppress(Unsatisfiable):  # an operation without parameters forbids nothing
        keep()
    return kept


def sent(case: Any, token: str) -> int:
    """The status. The edge's own refusals of what is no HTTP, or goes nowhere, are not the document's."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = case.call(headers=headers)
    assert answer.status_code < 500, (case.as_curl_command(headers={}), answer.text)
    if answer.status_code < 400 or "x-sb-error-code" in answer.headers:
        case.validate_response(answer, checks=CHECKS)
    else:
        assert answer.status_code in {400, 404, 405, 413}, (case.as_curl_command(headers={}), answer.text)
    return int(answer.status_code)
