"""The main job through the edge of a stack in containers, and what its walls hold.

PostgreSQL, Redis and Envoy are the real programs; their images are stand-ins where no registry was asked.
"""

from __future__ import annotations

import time
import uuid

import httpx
import pytest

from signgate_client import Signgate
from tests.chaos.system import User
from tests.containers.stack import LISTEN, SERVICES, Stack

pytestmark = pytest.mark.timeout(900)


async def test_sign_up_confirm_key_sign_rows_and_quota(stack: Stack) -> None:
    user = stack.sign_up(User(f"main-{uuid.uuid4().hex[:8]}"))
    with Signgate(stack.edge, api_key=user.key) as caller:
        signature = caller.sign("@containers")
        assert caller.verify(signature.signed_url).valid
        batch = caller.sign_batch(["@one", "no room", "@two"])
        assert [one.WhichOneof("result") for one in batch.results] == ["signature", "error", "signature"]
        end = time.monotonic() + 20
        while len(records := caller.list_usage().records) < 4:
            assert time.monotonic() < end, records
            time.sleep(0.1)
        assert sorted(record.success for record in records) == [False, True, True, True]
        day = next(limit for pool in caller.quota().pools for limit in pool.limits)
        assert day.limit - day.remaining == 3
    sql = await stack.sql()
    rows = await sql.fetch("SELECT success FROM usage_logs WHERE user_id = $1", uuid.UUID(user.user_id))
    await sql.close()
    assert sorted(row["success"] for row in rows) == [False, True, True, True]


def test_the_same_by_rest_and_the_console(stack: Stack) -> None:
    user = stack.sign_up(User(f"rest-{uuid.uuid4().hex[:8]}"))
    with httpx.Client(base_url=f"http://{LISTEN}", headers={"x-api-key": user.key}) as http:
        answer = http.post("/v1/sign", json={"roomUrl": "@containers"})
        assert answer.json()["signature"]["signedUrl"]
        page = http.get("/console/")
        assert page.status_code == 200
        script = page.text.partition('src="')[2].partition('"')[0]
        assert http.get(f"/console/{script}").status_code == 200


def test_only_the_edge_is_published_and_only_on_this_machine(stack: Stack) -> None:
    published = {
        (service, binding["HostIp"], binding["HostPort"])
        for service in (*SERVICES, "envoy", "postgres", "redis", "mail")
        for container in stack.containers(service)
        for bindings in stack.inspect(container)["NetworkSettings"]["Ports"].values()
        for binding in bindings or ()
    }
    host, _, port = LISTEN.partition(":")
    assert published == {("envoy", host, port)}


def reach(stack: Stack, service: str, host: str, port: int) -> bool:
    """Whether a connection can be made from one container to another."""
    (container,) = stack.containers(service)
    # The shell of every image that is asked here speaks TCP, and nothing else in Envoy's does.
    script = f"timeout 2 bash -c 'exec 3<>/dev/tcp/{host}/{port}' 2>/dev/null && echo yes || echo no"
    return stack.execute(container, "bash", "-c", script).strip() == "yes"


def test_the_edge_reaches_services_and_no_store(stack: Stack) -> None:
    (postgres,) = stack.containers("postgres")
    assert reach(stack, "envoy", "keys", 7102)
    assert not reach(stack, "envoy", "postgres", 5432)
    assert not reach(stack, "envoy", "redis", 6379)
    assert not reach(stack, "envoy", stack.address(postgres), 5432)
    assert reach(stack, "keys", "postgres", 5432)


@pytest.mark.parametrize("part", [*SERVICES, "envoy", "postgres", "redis"])
def test_a_part_runs_without_rights_on_a_root_that_it_cant_write(stack: Stack, part: str) -> None:
    (container,) = stack.containers(part)
    facts = stack.inspect(container)
    assert facts["HostConfig"]["ReadonlyRootfs"]
    assert facts["HostConfig"]["CapDrop"] == ["ALL"]
    assert facts["HostConfig"]["Memory"] > 0
    status = stack.execute(container, "cat", "/proc/1/status")
    assert "\nCapEff:\t0000000000000000\n" in status
    assert "\nNoNewPrivs:\t1\n" in status
    assert "\nUid:\t0\t" not in status


@pytest.mark.parametrize("service", SERVICES)
def test_no_secret_stands_in_the_environment_or_the_log(stack: Stack, service: str) -> None:
    (container,) = stack.containers(service)
    told = "\n".join(stack.inspect(container)["Config"]["Env"]) + stack.compose("logs", service)
    for path in stack.secrets.iterdir():
        secret = path.read_text(encoding="utf-8").strip()
        assert not secret or secret not in told, path.name
