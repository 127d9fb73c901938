"""What runs in the stack, and how: written out as supervisord's configuration."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local import postgres
from deploy.local.errors import StackError
from deploy.local.layout import HOST, ROOT, Layout, envoy_binary
from deploy.local.ports import MARK
from deploy.local.unprivileged import PostgresHome

EDGE = "envoy"
REDISES = ("redis", "limits")
"""Of each: deploy/redis/<name>.conf, the secret <name>_auth, a port and a folder of that name."""


@dataclass(frozen=True)
class Program:
    """One process. `rank`: supervisord stops the highest first, and those of one rank together."""

    name: str
    command: list[str]
    rank: int
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: str = "TERM"


def programs(layout: Layout) -> Iterator[Program]:
    """Everything that runs, in the order in which it is stopped, reversed."""
    owner = PostgresHome(layout).user
    yield Program(
        "postgres",
        postgres.command(layout),
        rank=100,
        user=owner.pw_name if owner else None,
        stop_signal="INT",  # PostgreSQL's fast shutdown: sessions end, nothing is lost
    )
    for name in REDISES:
        yield Program(name, [str(_tool("redis-server")), str(_redis_config(layout, name))], rank=100)
    yield Program(
        "mail",
        [
            sys.executable,
            *("-m", "deploy.local.mail", "--host", HOST, "--port", str(layout.port("smtp"))),
            *("--folder", str(layout.mail)),
        ],
        rank=100,
    )
    for instance in layout.instances():
        yield Program(
            instance.name,
            [sys.executable, "-m", instance.service.module],
            rank=500,
            environment=layout.environment(instance),
        )
    yield Program(
        EDGE,
        [
            str(envoy_binary()),
            *("--config-path", str(layout.envoy_config), "--concurrency", "2"),
            *("--disable-hot-restart", "--log-level", "warning", "--file-flush-interval-msec", "250"),
        ],
        rank=900,
    )


def write(layout: Layout) -> None:
    """Write supervisord's configuration, and Redis' beside it.

    Raises `StackError` for paths that supervisord's configuration has no way to spell.
    """
    for path in (layout.run, ROOT):
        if set(str(path)) & set('%"\n'):
            raise StackError(f"supervisord can't take a path with a % or a quotation mark in it: {path}")
    for name in REDISES:
        _write_redis_config(layout, name)
    parts = [_supervisord(layout)]
    ranks: dict[int, list[str]] = {}
    for program in programs(layout):
        parts.append(_section(layout, program))
        ranks.setdefault(program.rank, []).append(program.name)
    parts += [
        f"[group:rank{rank}]\nprograms={','.join(names)}\npriority={rank}\n" for rank, names in ranks.items()
    ]
    layout.supervisor_config.write_text("\n".join(parts), encoding="utf-8")


def _supervisord(layout: Layout) -> str:
    user = "user=root\n" if os.getuid() == 0 else ""
    return f"""\
; Written by `make up`; changes are overwritten.
[unix_http_server]
file={layout.socket}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[supervisord]
{user}logfile={layout.logs}/supervisord.log
pidfile={layout.run}/supervisord.pid
childlogdir={layout.logs}
directory={ROOT}
minfds=4096
"""


def _section(layout: Layout, program: Program) -> str:
    environment = {"PYTHONUNBUFFERED": "1", MARK: str(layout.run)} | dict(program.environment)
    pairs = ",".join(f"{name}={_quoted(value)}" for name, value in environment.items())
    user = f"user={program.user}\n" if program.user else ""
    return f"""\
[program:{program.name}]
command={_escaped(shlex.join(program.command))}
environment={pairs}
{user}autostart=false
autorestart=true
startsecs=1
startretries=5
stopsignal={program.stop_signal}
stopwaitsecs=20
killasgroup=true
redirect_stderr=true
stdout_logfile={layout.logs}/{program.name}.log
stdout_logfile_maxbytes=20MB
stdout_logfile_backups=2
"""


def _quoted(value: str) -> str:
    quote = "'" if '"' in value else '"'
    if quote in value:
        raise StackError("a setting with both kinds of quotes can't be given to supervisord", "supervisord")
    return f"{quote}{_escaped(value)}{quote}"


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _tool(name: str) -> Path:
    return Path(sys.executable).with_name(name)


def _redis_config(layout: Layout, name: str) -> Path:
    return layout.run / f"{name}.conf"


def _write_redis_config(layout: Layout, name: str) -> None:
    folder = layout.run / name
    folder.mkdir(parents=True, exist_ok=True)
    _redis_config(layout, name).write_text(
        f"""\
include "{ROOT}/deploy/redis/{name}.conf"
include "{layout.secrets}/{name}_auth"
bind {HOST}
port {layout.port(name)}
dir "{folder}"
# The title would be written over the environment, by which leftovers are recognised.
set-proc-title no
""",
        encoding="utf-8",
    )
