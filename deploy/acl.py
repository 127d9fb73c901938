"""Redis' users: for each, the commands, keys and channels that its service uses, and nothing else.

    python -m deploy.acl secrets_folder [store]

prints the users of a store as lines of an ACL file, which `ACL SETUSER` takes as well; passwords as hashes.
`store` is `redis` (default) or `limits`. The local stack, compose and Kubernetes read the same lines from
the secrets `redis_auth` and `limits_auth` (see deploy/secrets.py).

The rules are those of Redis 6.2, which can't grant reading and writing of a key apart: a user who may write
one key may write all that its patterns name. So a service that writes keys of its own looks at signed-out
sessions as another user, who can do nothing else (docs/adr/0013).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

Store = Literal["redis", "limits"]

CONNECTING: Final = ("ping", "client|setname", "cluster|slots", "command", "asking")
"""What the driver itself says: when it connects, and to learn the nodes of a cluster."""
DENIED: Final = "session:denied:*"
LOWERED: Final = "session:lowered:*"
"""Sessions whose assurance changed."""
LOOKING: Final = ("exists", "get", "mget")
"""How sessions are looked up: `exists` by services of the last version, `get` in a cluster."""


@dataclass(frozen=True)
class User:
    """One user of one store. `name` without a prefix names its secrets too."""

    name: str
    commands: tuple[str, ...]
    keys: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    store: Store = "redis"

    @property
    def login(self) -> str:
        return f"signgate_{self.name}"

    @property
    def password(self) -> str:
        """The secret that holds the password alone."""
        return f"redis_user_{self.name}"

    @property
    def url(self) -> str:
        """The secret that a service is given."""
        return f"redis_url_{self.name}"

    def rules(self, password: str) -> str:
        """`user NAME …` as an ACL file has it: whatever the user could do before is taken away first."""
        return " ".join(
            [
                *("user", self.login, "reset", "on", f"#{sha256(password.encode()).hexdigest()}"),
                *("resetchannels", "-@all"),
                *(f"~{pattern}" for pattern in self.keys),
                *(f"&{pattern}" for pattern in self.channels),
                *(f"+{command}" for command in (*CONNECTING, *self.commands)),
            ]
        )


def _sessions(service: str) -> User:
    return User(f"{service}_sessions", LOOKING, (DENIED, LOWERED))


USERS: Final = (
    # Signs sessions out and lowers them, for a time: it never has to take that back.
    User("auth", (*LOOKING, "set"), (DENIED, LOWERED)),
    User(
        "keys",
        (*LOOKING, "publish", "subscribe", "unsubscribe"),
        (DENIED, LOWERED),
        channels=("keys:invalidate",),
    ),
    User(
        "quota",
        (
            *("eval", "evalsha", "time", "info"),
            *("get", "set", "persist", "pexpire"),
            *("hget", "hmget", "hvals", "hset", "hdel"),
            *("rpush", "lrange", "ltrim"),
        ),
        ("q:*",),
    ),
    _sessions("quota"),
    User(
        "signer",
        ("eval", "evalsha", "time", "memory|usage", "xadd", "hincrby"),
        ("usage:{*",),  # not `usage:dead`
    ),
    _sessions("signer"),
    User(
        "logger",
        (
            *("eval", "evalsha", "time", "info", "memory|usage", "exists"),
            *("xgroup|create", "xgroup|delconsumer", "xreadgroup", "xautoclaim", "xack", "xpending"),
            *("xinfo", "xlen", "xrange", "xadd", "xdel", "xtrim"),
            *("hget", "hkeys", "hdel"),
        ),
        ("usage:*",),
    ),
    _sessions("logger"),
    User(
        "limits",
        (*("evalsha", "script|load", "get", "set", "exists", "incrby", "pttl", "rename", "del"),),
        ("auth:rate:*",),
        store="limits",
    ),
)


def lines(store: Store, folder: Path) -> list[str]:
    """The users of a store, with the passwords of the secrets in `folder`."""
    return [
        user.rules((folder / user.password).read_text(encoding="utf-8").strip())
        for user in USERS
        if user.store == store
    ]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("secrets_folder", type=Path)
    parser.add_argument("store", choices=("redis", "limits"), nargs="?", default="redis")
    given = parser.parse_args()
    print("\n".join(lines(given.store, given.secrets_folder)))


if __name__ == "__main__":
    main()
