"""The group of all commands, and the options that they share."""

from __future__ import annotations

import os

import click

from signgate_client.command import account, keys, signing, usage
from signgate_client.command.caller import Caller
from signgate_client.command.show import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--server",
    default="127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    envvar="SIGNGATE_SERVER",
    help="The edge, as host:port.",
)
@click.option("--tls", is_flag=True, show_envvar=True, envvar="SIGNGATE_TLS", help="The edge speaks TLS.")
@click.option(
    "--timeout", default=10.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds a call."
)
@click.option("--json", "as_json", is_flag=True, help="Answers as JSON, as REST gives them.")
@click.version_option(package_name="signgate", message="%(version)s")
@click.pass_context
def main(context: click.Context, server: str, *, tls: bool, timeout: float, as_json: bool) -> None:
    """Sign TikTok LIVE room URLs, and look after an account, its API keys, quota and usage.

    Calls are made for the API key in SIGNGATE_API_KEY; without one, for whoever has signed in with
    `signgate login`.
    """
    context.obj = Caller(server, tls, timeout, as_json, os.environ.get("SIGNGATE_API_KEY", ""))


for command in (*signing.COMMANDS, *keys.COMMANDS, *usage.COMMANDS, *account.COMMANDS):
    main.add_command(command)
