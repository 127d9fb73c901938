"""Redis' users on a real server: each may do what its service does, and nothing else.

Commands come from the server's own list, so none is forgotten. That each user may do all that its service
needs is shown by the services' own tests, which run as these users, and by tests/e2e/test_stores.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError, RedisError

from deploy import acl
from servicekit.testing.network import RedisProcess, redis_server
from tests.redis_users import USERS, login

EVERYONE = [one.name for one in acl.USERS]
WRITERS_OF_SESSIONS = {"auth"}
SESSION = "session:denied:8f1c"
KEYS = (
    *(SESSION, "session:denied:other", "session:lowered:8f1c", "session:x"),
    *("q:{u}:u", "q:{u}:o", "q:epoch", "q:watermark"),
    *("usage:{0}", "usage:{0}:published", "usage:dead"),
    *("auth:rate:{LIMITER/rate_sign_in_ip/192.0.2.1/300/5/minute}", "x", ""),
)
CHANNELS = ("keys:invalidate", "keys:other", "__keyspace@0__:x", "x")
NO_COMMANDS = {
    # They say who is asking, take the connection away from the test, or are refused to no user.
    *("auth", "hello", "quit", "reset"),
    # Understood only by replicas and within scripts; the names answer "unknown command".
    *("host:", "post"),
}
SUBCOMMANDS = {
    "client": ("LIST", "KILL", "PAUSE", "ID", "TRACKING", "REPLY"),
    "cluster": ("FAILOVER", "RESET", "MEET", "FORGET", "ADDSLOTS", "SETSLOT", "NODES"),
    "memory": ("PURGE", "DOCTOR", "STATS"),
    "script": ("FLUSH", "KILL", "DEBUG", "EXISTS"),
    "xgroup": ("DESTROY", "SETID", "CREATECONSUMER"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisProcess]:
    with redis_server(always=USERS) as found:
        yield found


@pytest.fixture(scope="module")
def operator(server: RedisProcess) -> Iterator[Any]:
    with redis.Redis.from_url(server.url, decode_responses=True) as found:
        yield found


@pytest.fixture(params=EVERYONE)
def who(request: pytest.FixtureRequest) -> acl.User:
    return next(one for one in acl.USERS if one.name == request.param)


@pytest.fixture
def client(server: RedisProcess, operator: Any, who: acl.User) -> Iterator[Any]:
    operator.set(SESSION, "1", ex=3600)
    with redis.Redis.from_url(login(server.url, who.name), decode_responses=True, driver_info=None) as one:
        yield one


def refused(client: Any, *command: str) -> bool:
    try:
        client.execute_command(*command)
    except NoPermissionError:
        return True
    except RedisError as error:
        return "no permissions" in str(error)  # as EXEC words it
    return False


def may(who: acl.User) -> set[str]:
    return {name.split("|")[0] for name in (*acl.CONNECTING, *who.commands)}


def commands(operator: Any) -> dict[str, tuple[int, int]]:
    """How many arguments each command takes at least, and which of them is its first key (0: none)."""
    listed = operator.execute_command("COMMAND").values()
    return {
        one["name"]: (abs(one["arity"]) - 1, one["first_key_pos"])
        for one in listed
        if one["name"] not in NO_COMMANDS
    }


def called(name: str, key: str, takes: int, place: int) -> tuple[str, ...]:
    """A command about a key, with as many arguments as it needs."""
    match name:
        case "eval":
            return (name, "return redis.call('PING')", "1", key)
        case "evalsha":
            return (name, "0" * 40, "1", key)
        case "memory":
            return (name, "USAGE", key)
        case "xgroup":
            return (name, "CREATE", key, "g", "0")
        case "xinfo":
            return (name, "STREAM", key)
        case "xreadgroup":
            return (name, "GROUP", "g", "c", "STREAMS", key, ">")
        case "rename":
            return (name, key, key)
        case _:
            arguments = ["1"] * takes
            arguments[place - 1] = key
            return (name, *arguments)


def test_every_command_but_its_own_is_refused(operator: Any, client: Any, who: acl.User) -> None:
    known = commands(operator)
    assert {"keys", "flushall", "flushdb", "config", "debug", "script", "acl", "shutdown"} <= known.keys()
    assert may(who) <= known.keys()
    for name, (takes, _) in known.items():
        if name not in may(who):
            assert refused(client, name, *["1"] * takes), name
    for name, others in SUBCOMMANDS.items():
        for other in others:
            assert refused(client, name, other, *["1"] * 3), f"{name} {other}"


def test_its_own_commands_reach_its_own_keys_alone(operator: Any, client: Any, who: acl.User) -> None:
    known = commands(operator)
    tried = set()
    for name in sorted(may(who)):
        takes, place = known[name]
        movable = name in {"eval", "evalsha", "xreadgroup", "memory"}
        if not place and not movable:
            continue
        for key in KEYS:
            own = any(
                key.startswith(pattern.removesuffix("*")) if pattern.endswith("*") else key == pattern
                for pattern in who.keys
            )
            command = called(name, key, takes, place)
            assert refused(client, *command) is not own, command
            tried.add(own)
    assert tried == {True, False}


def test_channels_are_heard_and_spoken_to_by_name(client: Any, who: acl.User) -> None:
    for channel in CHANNELS:
        for command in ("publish", "subscribe"):
            allowed = command in who.commands and channel in who.channels
            assert refused(client, command, channel, *(["x"] if command == "publish" else [])) is not allowed
    if "subscribe" in who.commands:
        client.connection_pool.disconnect()


def test_no_service_but_auth_brings_a_signed_out_session_back(
    operator: Any, client: Any, who: acl.User
) -> None:
    """By any command that the server knows, by name or from within a script, declared or not."""
    if who.name in WRITERS_OF_SESSIONS:  # it signs sessions out, and deletes none
        assert refused(client, "DEL", SESSION)
        assert operator.get(SESSION) == "1"
        return
    for name, (takes, place) in commands(operator).items():
        for at in {place, 1, 2, 3} & set(range(1, takes + 1)):
            refused(client, *called(name, SESSION, takes, at))
    for words in ("'DEL', '{}'", "'SET', '{}', '', 'PX', 1", "'PEXPIRE', '{}', 1", "'RENAME', '{}', 'q:x'"):
        for keys in (("0",), ("1", SESSION), ("1", "q:x")):
            refused(client, "EVAL", f"return redis.call({words.format(SESSION)})", *keys)
    assert operator.get(SESSION) == "1"
    assert operator.ttl(SESSION) > 3000


def test_auth_signs_out_and_takes_nothing_back(operator: Any, server: RedisProcess) -> None:
    with redis.Redis.from_url(login(server.url, "auth"), driver_info=None) as auth:
        auth.set("session:denied:one", b"1", ex=60)
        auth.set("session:lowered:one", b"1", ex=60)
        assert auth.mget("session:denied:one", "session:lowered:one") == [b"1", b"1"]
        for command in (
            ("DEL",),
            ("UNLINK",),
            ("EXPIRE", "1"),
            ("GETDEL",),
            ("RENAME", "session:denied:two"),
        ):
            assert refused(auth, command[0], "session:denied:one", *command[1:]), command
    assert operator.ttl("session:denied:one") > 0


def test_who_does_not_log_in_is_not_taken_for_anyone(server: RedisProcess, who: acl.User) -> None:
    wrong = server.url.replace("redis://", f"redis://{who.login}:guessed@")
    with redis.Redis.from_url(wrong) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
