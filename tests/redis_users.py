"""The services' own Redis users on a test's own servers, as deploy/acl.py has them.

    with redis_server(always=USERS) as server:
        settings = QuotaSettings(redis_url=login(server.url, "quota"), …)

The default user stays without a password, for tests to prepare and to look.
"""

from __future__ import annotations

import shlex
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from deploy import acl

PASSWORD: Final = "of-the-test"  # of servers that live as long as a test
USERS: Final = [
    word for one in acl.USERS for word in ("--user", *shlex.split(one.rules(PASSWORD).removeprefix("user ")))
]
"""Options of redis-server that make every user."""


def login(url: str, name: str) -> str:
    """The URL by which a user of deploy/acl.py logs in."""
    (user,) = (one for one in acl.USERS if one.name == name)
    parts = urlsplit(url)
    netloc = f"{user.login}:{PASSWORD}@{parts.hostname}:{parts.port}"
    return urlunsplit(parts._replace(netloc=netloc))
