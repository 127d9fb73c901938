"""The local stack from the command line: `python -m deploy.local up`, or what `--help` lists."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from deploy.local.errors import StackError
from deploy.local.layout import Layout
from deploy.local.stack import Stack


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("up", "start everything and wait until it serves"),
        ("down", "stop everything, keep the data"),
        ("status", "what runs, and where"),
        ("destroy", "stop everything and remove the data"),
    ):
        commands.add_parser(name, help=text)
    for name, text in (("logs", "follow the logs"), ("restart", "restart one part")):
        command = commands.add_parser(name, help=text)
        command.add_argument("part", nargs="?" if name == "logs" else None)
    command = commands.add_parser("exec", help="run a Python module as a service would: in its environment")
    command.add_argument("part")
    command.add_argument("module", nargs=argparse.REMAINDER, help="a module and its arguments")
    arguments = parser.parse_args()

    stack = Stack(Layout.from_environment())
    try:
        return run(stack, arguments)
    except StackError as error:
        print(f"\n{error}", file=sys.stderr)
        if error.culprit and (tail := stack.tail(error.culprit)):
            print(f"\nThe end of {stack.log(error.culprit)}:\n{tail}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(stack: Stack, arguments: argparse.Namespace) -> int:
    """Carry out one command; returns the exit status."""
    match arguments.command:
        case "up":
            stack.up()
            print(where(stack.layout))
        case "down":
            print("Stopped." if stack.down() else "Nothing was running.")
        case "destroy":
            stack.destroy()
        case "restart":
            stack.restart(arguments.part)
        case "exec":
            execute(stack.layout, arguments.part, arguments.module)
        case "status":
            return status(stack)
        case "logs":
            logs = [stack.log(arguments.part)] if arguments.part else sorted(stack.layout.logs.glob("*.log"))
            if not logs or not logs[0].exists():
                raise StackError(f"There are no such logs in {stack.layout.logs}")
            os.execvp("tail", ["tail", "-n", "20", "-F", *map(str, logs)])  # noqa: S606, S607 -- becomes tail
    return 0


def execute(layout: Layout, part: str, module: Sequence[str]) -> None:
    """Become `python -m <module>` with a service's settings. Raises `StackError` for another part."""
    names = [instance.service.name for instance in layout.instances()]
    if part not in names or not module:
        raise StackError(f"Name a service ({', '.join(dict.fromkeys(names))}) and a module to run as it")
    settings = layout.environment(layout.instances(part)[0])
    command = [sys.executable, "-m", *module]
    os.execve(sys.executable, command, os.environ | settings)  # noqa: S606 -- becomes it


def status(stack: Stack) -> int:
    """Print every process; 0 only if all run."""
    processes = stack.processes()
    for process in processes.values():
        print(f"  {process.name:<11} {process.state:<9} {process.description}")
    print(where(stack.layout))
    return 0 if all(process.state == "RUNNING" for process in processes.values()) else 1


def where(layout: Layout) -> str:
    """What a newcomer wants to know once it runs."""
    return f"""
  the edge    {layout.edge_url}   gRPC, gRPC-web, REST
  the console {layout.edge_url}/console/
  mail        {layout.mail}/*.eml
  logs        {layout.logs}/*.log
  PostgreSQL  127.0.0.1:{layout.port("postgres")}, database signgate; passwords in {layout.secrets}
  Envoy admin http://127.0.0.1:{layout.port("envoy_admin")}"""


if __name__ == "__main__":
    sys.exit(main())
