"""Mails about API keys, from the keys service through auth to the owner."""

from __future__ import annotations

import httpx
from google.protobuf import descriptor_pb2

from deploy.local.layout import ROOT
from tests.conftest import Running
from tests.e2e.conftest import Account


def text(running: Running, account: Account, count: int) -> str:
    """The newest mail, once there are more than `count`."""
    body = running.wait_for_mail(account.email, after=count, keys=True).get_body(("plain",))
    assert body is not None
    return " ".join(body.get_content().split())


def test_an_owner_hears_of_a_new_key_a_rotated_one_and_a_revoked_one(
    running: Running, account: Account
) -> None:
    """The account has a key already."""
    first = text(running, account, 0)
    assert 'The API key "e2e"' in first
    assert "created" in first
    assert account.key not in first
    headers = {"authorization": f"Bearer {account.session.access_token}"}
    with httpx.Client(base_url=running.edge_url, headers=headers, timeout=20) as http:
        rotated = http.post(f"/v1/keys/{account.key_id}:rotate", json={})
        assert rotated.status_code == 200, rotated.text
        assert "was replaced by a new one" in text(running, account, 1)
        revoked = http.delete(f"/v1/keys/{account.key_id}")
        assert revoked.status_code == 200, revoked.text
        told = text(running, account, 2)
        assert "was revoked" in told
        assert "from 127.0.0.1." in told
        http.delete(f"/v1/keys/{account.key_id}")  # it is revoked already: no mail


def test_the_edge_does_not_route_to_it(running: Running) -> None:
    files = descriptor_pb2.FileDescriptorSet.FromString((ROOT / "gen/signgate.binpb").read_bytes())
    assert "NoticeService" in {service.name for file in files.file for service in file.service}
    answer = httpx.post(
        f"{running.edge_url}/signgate.auth.v1.NoticeService/SendKeyNotice",
        headers={"content-type": "application/grpc-web+proto"},
        content=b"\0" * 5,
    )
    assert answer.status_code == 404 or answer.headers["grpc-status"] == "12"
