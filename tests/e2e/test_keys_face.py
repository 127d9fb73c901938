"""Keys over REST: what the contract says in HTTP's words, through the edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import Running
from tests.e2e.conftest import Account


@pytest.fixture
def http(running: Running, account: Account) -> Iterator[httpx.Client]:
    """As the account's login."""
    headers = {"authorization": f"Bearer {account.session.access_token}"}
    with httpx.Client(base_url=running.edge_url, headers=headers, timeout=20) as client:
        yield client


@pytest.fixture
def operator(running: Running, service_role: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {service_role}"}
    with httpx.Client(base_url=running.edge_url, headers=headers, timeout=20) as client:
        yield client


def create(http: httpx.Client, headers: dict[str, str] | None = None, **members: Any) -> Any:
    answer = http.post("/v1/keys", json={"name": "rest", **members}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(http: httpx.Client, **filters: Any) -> list[str]:
    answer = http.get("/v1/keys", params=filters)
    assert answer.status_code == 200, answer.text
    return [key["name"] for key in answer.json().get("keys", [])]


def verdict(running: Running, secret: str) -> str:
    """OK, or why a key is refused."""
    answer = httpx.get(f"{running.edge_url}/v1/quota", headers={"x-api-key": secret}, timeout=20)
    return str(answer.json().get("reason", "OK"))


def test_keys_are_found_by_query_parameters(http: httpx.Client) -> None:
    create(http, name="eins & zwei", metadata={"team": "a", "expr": "x=1&y"}, externalId="c/1")
    create(http, name="drei", metadata={"team": "a", "env": "prod"}, external_id="c/2")
    assert names(http, external_id="c/1") == ["eins & zwei"]
    assert names(http, externalId="c/2") == ["drei"]
    assert names(http, metadata_filter="team=a") == ["drei", "eins & zwei"]
    assert names(http, metadata_filter=["team=a", "env=prod"]) == ["drei"]
    assert names(http, metadata_filter="expr=x=1&y") == ["eins & zwei"]
    assert names(http, name_contains="EINS &") == ["eins & zwei"]
    first = http.get("/v1/keys", params={"metadata_filter": "team=a", "page_size": 1}).json()
    more = {"metadata_filter": "team=a", "page_size": 1, "page_token": first["nextPageToken"]}
    assert names(http, **more) == ["eins & zwei"]
    for wrong, reason in (
        ({**more, "metadata_filter": "team=b"}, "PAGE_TOKEN_INVALID"),
        ({"metadata_filter": "team"}, "VALIDATION_FAILED"),
    ):
        answer = http.get("/v1/keys", params=wrong)
        assert (answer.status_code, answer.json()["reason"]) == (400, reason)


def test_metadata_is_changed_pair_by_pair(http: httpx.Client) -> None:
    key = create(http, metadata={"a": "1", "b": "2"})["key"]
    assert key["metadata"] == {"a": "1", "b": "2"}
    answer = http.patch(f"/v1/keys/{key['id']}", json={"metadata": {"a": "", "c": "3"}, "externalId": "x"})
    assert answer.json()["key"]["metadata"] == {"b": "2", "c": "3"}
    assert answer.json()["key"]["externalId"] == "x"


def test_a_repeat_by_header_or_by_body_gives_the_same_answer(http: httpx.Client) -> None:
    once = str(uuid4())
    first = create(http, headers={"idempotency-key": once})
    assert create(http, headers={"Idempotency-Key": once}) == first
    assert create(http, idempotencyKey=once) == first
    reused = http.post("/v1/keys", json={"name": "another", "idempotencyKey": once})
    assert (reused.status_code, reused.json()["reason"]) == (400, "IDEMPOTENCY_KEY_REUSED")
    rotate = f"/v1/keys/{first['key']['id']}:rotate"
    turned = [http.post(rotate, json={}, headers={"idempotency-key": "turn"}).json() for _ in range(2)]
    assert turned[0]["secret"] == turned[1]["secret"] != first["secret"]
    assert http.post(rotate, json={}).json()["reason"] == "KEY_ROTATED"


def test_all_keys_but_one_are_revoked(running: Running, http: httpx.Client, account: Account) -> None:
    kept = create(http)
    answer = http.post("/v1/keys:revokeAll", json={"exceptKeyId": kept["key"]["id"]})
    assert answer.json() == {"revokedCount": 1, "keyIds": [account.key_id]}
    assert verdict(running, account.key) == "KEY_REVOKED"
    assert verdict(running, kept["secret"]) == "OK"
    assert http.post("/v1/keys:revokeAll", json={}).json()["keyIds"] == [kept["key"]["id"]]
    assert verdict(running, kept["secret"]) == "KEY_REVOKED"


def test_an_operator_lists_and_revokes(
    running: Running, http: httpx.Client, operator: httpx.Client, account: Account,
    new_account: Callable[[], Account],
) -> None:  # fmt: skip
    path = f"/v1/admin/users/{account.session.user.id}/keys"
    other, bystander = create(http, external_id="mine"), new_account()
    listed = operator.get(path, params={"external_id": "mine"}).json()
    assert [key["id"] for key in listed["keys"]] == [other["key"]["id"]]
    assert len(operator.get(path).json()["keys"]) == 2

    one = f"{path}/{account.key_id}:revoke"
    assert operator.post(one, json={}).json()["reason"] == "VALIDATION_FAILED"
    foreign = operator.post(f"{path}/{bystander.key_id}:revoke", json={"reason": "x"})
    assert (foreign.status_code, foreign.json()["reason"]) == (404, "KEY_NOT_FOUND")
    assert operator.post(one, json={"reason": "found in a paste"}).status_code == 200
    assert verdict(running, account.key) == "KEY_REVOKED"
    event = http.get(f"/v1/keys/{account.key_id}/events").json()["events"][0]
    assert (event["action"], event["actorKind"]) == ("key.revoked", "service_role")
    assert event["reason"] == "found in a paste"

    rest = operator.post(f"{path}:revokeAll", json={"reason": "taken over"}).json()
    assert rest == {"revokedCount": 1, "keyIds": [other["key"]["id"]]}
    assert verdict(running, other["secret"]) == "KEY_REVOKED"
    assert verdict(running, bystander.key) == "OK"
    unknown = operator.get(f"/v1/admin/users/{uuid4()}/keys")
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "USER_NOT_FOUND")
    for method, where in (("GET", path), ("POST", one), ("POST", f"{path}:revokeAll")):
        refused = http.request(method, where, json=None if method == "GET" else {"reason": "x"})
        assert (refused.status_code, refused.json()["reason"]) == (403, "SERVICE_ROLE_REQUIRED")
