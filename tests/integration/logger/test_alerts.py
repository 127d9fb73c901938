"""Alerts: once each, by mail and webhook, until they are taken; and nothing that leads inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from servicekit.clock import SystemClock
from servicekit.config import Address
from servicekit.errors import InvalidArgument
from servicekit.http import HttpServer
from servicekit.postgres import open_database
from servicekit.principal import Principal
from services.logger.alerts.model import Alert, Wishes
from services.logger.alerts.service import AlertService
from services.logger.alerts.store import AlertStore
from services.logger.alerts.watch import AlertWatch
from services.logger.alerts.webhook import Webhooks, is_public
from tests.integration.auth.world import Mailbox, mail_server
from tests.integration.logger.world import World, event


@dataclass
class Receiver:
    """A webhook's end. Answers with the statuses in turn, then with 200."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def take(self, request: Request) -> Response:
        self.got.append((dict(request.headers), await request.body()))
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 302:
            return RedirectResponse("/elsewhere", status_code=302)
        return Response(status_code=status)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = Starlette(routes=[Route("/hook", receiver.take, methods=["POST"])])
    server = HttpServer(app, Address("127.0.0.1", 0), grace=1.0)
    receiver.url = f"http://127.0.0.1:{(await server.start()).port}/hook"
    try:
        yield receiver
    finally:
        await server.stop()


@dataclass
class Alerting:
    """One user with a limit, and what sends them alerts."""

    world: World
    store: AlertStore
    service: AlertService
    mailbox: Mailbox
    user: UUID
    secret: str = ""

    @property
    def caller(self) -> Principal:
        return Principal(user_id=self.user, scopes=frozenset(), tier="free")

    @property
    def address(self) -> str:
        return f"{self.user}@example.com"

    async def limit(self, daily: int) -> None:
        await self.world.sql.execute(
            "INSERT INTO user_plan_overrides (user_id, pool, daily_limit) VALUES ($1, 'free', $2)"
            " ON CONFLICT (user_id, pool) DO UPDATE SET daily_limit = $2",
            self.user,
            daily,
        )

    async def sign(self, count: int) -> None:
        """So many signatures, through the running logger."""
        rows = await self.world.rows()
        await self.world.publish(*[event(self.user) for _ in range(count)])
        await self.world.until(rows=rows + count)

    def logger(self, **changes: Any) -> Any:
        return self.world.logger(
            smtp_host="127.0.0.1",
            smtp_port=self.mailbox.port,
            webhook_allow_private=True,
            alerts_interval=0.05,
            **changes,
        )

    async def latest(self, count: int) -> list[Alert]:
        """Wait until there are so many, none of them pending."""
        async with asyncio.timeout(10):
            while True:
                found = await self.store.latest(self.caller)
                if len(found) >= count and all("pending" not in (one.mail, one.webhook) for one in found):
                    return found
                await asyncio.sleep(0.02)


@pytest.fixture
async def alerting(world: World) -> AsyncIterator[Alerting]:
    user = await world.user()
    async with (
        mail_server() as mailbox,
        open_database(world.database.dsn("signgate_logger"), name="test") as database,
    ):
        store = AlertStore(database)
        found = Alerting(world, store, AlertService(store, allow_private=True), mailbox, user)
        await found.limit(10)
        yield found


async def test_each_threshold_is_told_once_by_mail(alerting: Alerting) -> None:
    async with alerting.logger():
        await alerting.sign(7)
        await asyncio.sleep(0.3)
        assert await alerting.store.latest(alerting.caller) == []
        await alerting.sign(1)
        mail = await alerting.mailbox.wait(alerting.address)
        assert mail["Subject"] == "Signgate: 80 % of today's quota is used"
        assert "8 of 10" in mail.get_content()
        await alerting.sign(1)  # still over 80 %
        await alerting.sign(1)
        mail = await alerting.mailbox.wait(alerting.address, 2)
        assert mail["Subject"] == "Signgate: today's quota is used up"
        found = await alerting.latest(2)
    assert [(one.threshold, one.used, one.daily_limit, one.mail, one.webhook) for one in found] == [
        (100, 10, 10, "sent", "off"),
        (80, 8, 10, "sent", "off"),
    ]
    async with alerting.logger():  # which looks at everybody when it starts
        await asyncio.sleep(0.3)
    assert len(alerting.mailbox.to(alerting.address)) == 2


async def test_a_jump_over_both_is_one_alert(alerting: Alerting) -> None:
    async with alerting.logger():
        await alerting.sign(10)
        assert [one.threshold for one in await alerting.latest(1)] == [100]


async def test_two_loggers_make_and_deliver_each_once(alerting: Alerting) -> None:
    async with receiving() as receiver:
        await alerting.service.wish(alerting.caller, Wishes(webhook_url=receiver.url), rotate_secret=False)
        async with alerting.logger(consumer="a"), alerting.logger(consumer="b"):
            for _ in range(10):
                await alerting.sign(1)
            await alerting.latest(2)
            await asyncio.sleep(0.3)
        assert len(receiver.got) == 2
        assert len(alerting.mailbox.to(alerting.address)) == 2


async def test_what_was_committed_before_a_crash_is_told_after_it(alerting: Alerting) -> None:
    async with alerting.world.logger(alerts_interval=3600.0):
        await alerting.sign(9)
    await alerting.world.sql.execute("DELETE FROM quota_alerts")
    async with alerting.logger():
        await alerting.mailbox.wait(alerting.address)


async def test_webhooks_are_signed_and_say_what_happened(alerting: Alerting) -> None:
    async with receiving() as receiver:
        secret = await alerting.service.wish(
            alerting.caller, Wishes(mail=False, webhook_url=receiver.url), rotate_secret=False
        )
        async with alerting.logger():
            await alerting.sign(8)
            [alert] = await alerting.latest(1)
        [(headers, body)] = receiver.got
        verified = Webhook(secret).verify(body, headers)
        assert verified["data"] == {
            "user_id": str(alerting.user),
            "pool": "free",
            "date": alert.date.isoformat(),
            "threshold_percent": 80,
            "used": 8,
            "daily_limit": 10,
        }
        assert headers["webhook-id"] == str(alert.id)
        other = Webhook("whsec_" + "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB")
        with pytest.raises(WebhookVerificationError):
            other.verify(body, headers)
    assert (alert.mail, alert.webhook) == ("off", "sent")
    assert alerting.mailbox.to(alerting.address) == []


async def quick_watch(alerting: Alerting, tries: int) -> AlertWatch:
    webhooks = Webhooks(SystemClock(), allow_private=True)
    return AlertWatch(
        alerting.store, None, webhooks, SystemClock(), sender="a@b.c", product="x", interval=1,
        waits=[timedelta(0)] * tries,
    )  # fmt: skip


async def test_a_webhook_is_repeated_with_one_id_until_it_is_taken(alerting: Alerting) -> None:
    async with receiving() as receiver:
        receiver.statuses = [500, 302, 404]
        await alerting.service.wish(
            alerting.caller, Wishes(mail=False, webhook_url=receiver.url), rotate_secret=False
        )
        async with alerting.world.logger(alerts_interval=3600.0):
            await alerting.sign(8)
        await (await quick_watch(alerting, 5)).round()
        [alert] = await alerting.latest(1)
        assert [headers["webhook-id"] for headers, _ in receiver.got] == [str(alert.id)] * 4
        assert alert.webhook == "sent"
    [row] = await alerting.world.sql.fetch("SELECT attempts FROM quota_alerts")
    assert row["attempts"] == 4


@pytest.mark.parametrize(("statuses", "calls"), [([500] * 9, 4), ([410], 1)])
async def test_a_webhook_that_nobody_takes_is_given_up(
    alerting: Alerting, statuses: list[int], calls: int
) -> None:
    async with receiving() as receiver:
        receiver.statuses = statuses
        await alerting.service.wish(
            alerting.caller, Wishes(mail=False, webhook_url=receiver.url), rotate_secret=False
        )
        async with alerting.world.logger(alerts_interval=3600.0):
            await alerting.sign(8)
        await (await quick_watch(alerting, 3)).round()
        assert [one.webhook for one in await alerting.latest(1)] == ["failed"]
        assert len(receiver.got) == calls


async def test_a_mail_server_that_is_busy_is_tried_again_and_the_webhook_not_repeated(
    alerting: Alerting,
) -> None:
    async with receiving() as receiver:
        await alerting.service.wish(alerting.caller, Wishes(webhook_url=receiver.url), rotate_secret=False)
        alerting.mailbox.refuse = "451 busy"
        async with alerting.logger():
            await alerting.sign(8)
            while not receiver.got:
                await asyncio.sleep(0.02)
            alerting.mailbox.refuse = ""
            await alerting.world.sql.execute("UPDATE quota_alerts SET next_attempt_at = now()")
            [alert] = await alerting.latest(1)
        assert (alert.mail, alert.webhook, len(receiver.got)) == ("sent", "sent", 1)


async def test_a_webhook_never_leads_into_this_network(alerting: Alerting) -> None:
    """The URL was public when it was set; the name leads inside when it is called."""
    async with receiving() as receiver:
        port = receiver.url.split(":")[2]
        for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "2130706433"):
            await alerting.world.sql.execute("DELETE FROM quota_alerts")
            await alerting.service.wish(
                alerting.caller, Wishes(mail=False, webhook_url=f"http://{host}:{port}"), rotate_secret=True
            )
            async with alerting.world.logger(alerts_interval=0.05):
                if await alerting.world.rows() == 0:
                    await alerting.sign(8)
                async with asyncio.timeout(10):
                    while not await alerting.world.sql.fetchval("SELECT sum(attempts) FROM quota_alerts"):
                        await asyncio.sleep(0.02)
                await asyncio.sleep(0.1)
            assert receiver.got == [], host


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("10.1.2.3", False), ("172.16.0.1", False),
        ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False),
        ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False), ("::ffff:10.0.0.1", False),
        ("2002:0a00:0001::", False), ("224.0.0.1", False), ("255.255.255.255", False),
    ],
)  # fmt: skip
def test_what_a_public_address_is(address: str, public: bool) -> None:  # noqa: FBT001
    assert is_public(address) is public


async def test_wishes_are_the_callers_own_and_the_secret_is_shown_once(alerting: Alerting) -> None:
    service, caller = alerting.service, alerting.caller
    other = Principal(user_id=await alerting.world.user(), scopes=frozenset(), tier="free")
    assert await service.wishes(caller) == Wishes(mail=True, webhook_url="")
    url = "https://hooks.example/a"
    first = await service.wish(caller, Wishes(mail=False, webhook_url=url), rotate_secret=False)
    assert first.startswith("whsec_")
    assert await service.wishes(caller) == Wishes(mail=False, webhook_url=url)
    assert await service.wishes(other) == Wishes(mail=True, webhook_url="")
    assert await service.wish(caller, Wishes(mail=True, webhook_url=url), rotate_secret=False) == ""
    again = await service.wish(caller, Wishes(mail=True, webhook_url=url), rotate_secret=True)
    assert again not in ("", first)
    held = await alerting.world.sql.fetchval("SELECT webhook_secret FROM alert_settings")
    assert held == again
    assert await service.wish(caller, Wishes(mail=True), rotate_secret=True) == ""
    assert await alerting.world.sql.fetchval("SELECT webhook_secret FROM alert_settings") is None
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with alerting.store._database.as_user(caller) as connection:
            await connection.fetch("SELECT * FROM get_alert_settings($1)", other.user_id)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example/", "ftp://hooks.example/", "https://", "https:///x", "hooks.example",
        "https://user:pw@hooks.example/", "https://hooks.example/#x", "https://hooks.example/ x",
        "https://hooks.example:99999/", "https://[::1/", "https://ü.example/", "https://a/" + "x" * 2048,
        "javascript:alert(1)", "https://hooks.example/\r\nx",
    ],
)  # fmt: skip
async def test_a_url_that_no_webhook_goes_to_is_refused_and_changes_nothing(
    alerting: Alerting, url: str
) -> None:
    service = AlertService(alerting.store)
    with pytest.raises(InvalidArgument):
        await service.wish(alerting.caller, Wishes(mail=False, webhook_url=url), rotate_secret=False)
    assert await service.wishes(alerting.caller) == Wishes()


async def test_an_account_that_is_deleted_takes_its_wishes_and_alerts_with_it(alerting: Alerting) -> None:
    await alerting.service.wish(
        alerting.caller, Wishes(webhook_url="https://hooks.example/"), rotate_secret=False
    )
    async with alerting.world.logger(alerts_interval=0.05):
        await alerting.sign(9)
        async with asyncio.timeout(10):
            while not await alerting.store.latest(alerting.caller):
                await asyncio.sleep(0.02)
    await alerting.world.sql.execute("DELETE FROM users WHERE id = $1", alerting.user)
    for table in ("alert_settings", "quota_alerts"):
        assert await alerting.world.sql.fetchval(f"SELECT count(*) FROM {table}") == 0


async def test_an_alert_of_nobody_waits_for_nothing(alerting: Alerting) -> None:
    assert await alerting.store.make([uuid4()]) == 0
    assert await alerting.store.claim(10, timedelta(seconds=1)) == []
