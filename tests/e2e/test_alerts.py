"""Alerts through the edge: wishes by REST and gRPC, and the mail that comes."""

from __future__ import annotations

import grpc
import httpx

from signgate.common.v1 import quota_pb2
from signgate.usage.v1 import alerts_pb2 as pb
from signgate.usage.v1 import alerts_pb2_grpc
from signgate_client import Signgate
from tests.conftest import Running
from tests.e2e.conftest import Account


def test_a_key_that_uses_up_its_day_is_told_by_mail_and_listed(
    running: Running, service_role: str, account: Account
) -> None:
    _limit(running, service_role, account, 5)
    with Signgate(running.edge, api_key=account.key) as client:
        for number in range(4):
            client.sign(f"@alert.{number}")
    mail = running.wait_for_mail(account.email, after=1)
    assert "80 % of today's quota" in mail["Subject"]
    body = mail.get_body(("plain",))
    assert body is not None
    assert "4 of 5" in body.get_content()
    with grpc.insecure_channel(running.edge) as channel:
        stub = alerts_pb2_grpc.AlertServiceStub(channel)
        found = stub.ListAlerts(pb.ListAlertsRequest(), metadata=(("x-api-key", account.key),))
    [alert] = found.alerts
    assert (alert.threshold_percent, alert.used, alert.daily_limit) == (80, 4, 5)
    assert alert.pool == quota_pb2.POOL_API_KEY


def test_wishes_are_a_logins_and_not_a_keys(running: Running, account: Account) -> None:
    settings = f"http://{running.edge}/v1/alerts/settings"
    login = {"authorization": f"Bearer {account.session.access_token}"}
    wish = {"mail": True, "webhookUrl": "https://hooks.example/a"}
    with httpx.Client() as client:
        assert client.get(settings, headers=login).json()["mail"] is True
        made = client.put(settings, headers=login, json=wish)
        assert made.json()["webhookSecret"].startswith("whsec_")
        assert client.get(settings, headers=login).json()["webhookUrl"] == "https://hooks.example/a"
        refused = client.put(settings, headers=login, json={"mail": False, "webhookUrl": "http://127.0.0.1/"})
        assert refused.status_code == 400
        assert client.get(settings, headers=login).json()["mail"] is True
        assert client.put(settings, headers={"x-api-key": account.key}, json=wish).status_code == 403


def _limit(running: Running, service_role: str, account: Account, daily: int) -> None:
    """As an operator does it."""
    override = {"userId": account.session.user.id, "pool": "POOL_API_KEY", "dailyLimit": str(daily)}
    url, token = f"http://{running.edge}/v1/admin/overrides", {"authorization": f"Bearer {service_role}"}
    answer = httpx.put(url, headers=token, json=override)
    assert answer.json()["override"]["dailyLimit"] == str(daily), answer.text
    assert [one["userId"] for one in httpx.get(url, headers=token).json()["overrides"]].count(
        override["userId"]
    ) == 1
    refused = httpx.put(url, headers={"x-api-key": account.key}, json=override | {"dailyLimit": "1000"})
    assert refused.status_code == 403
