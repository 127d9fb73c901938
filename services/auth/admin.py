"""Tools for operators.

    python -m services.auth.admin token --role service_role --ttl 3600

mints a token for the administrators' RPCs and writes it to standard output. It reads the key file, issuer
and audience from the service's own settings (`SIGNGATE_JWT_KEYSET_FILE`, `SIGNGATE_JWT_ISSUER`,
`SIGNGATE_JWT_AUDIENCE`) and asks no server. Such a token is in no session, so it ends by time alone: keep
it short.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from servicekit.clock import SystemClock, SystemIds
from servicekit.config import Settings, load
from servicekit.keyset import KeySetError, KeySetFile
from services.auth.config import Url
from services.auth.tokens import AccessTokens

DAY = 86_400


class TokenSettings(Settings):
    """The part of the service's settings that minting needs."""

    jwt_keyset_file: Path
    jwt_issuer: Url
    jwt_audience: str = "authenticated"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m services.auth.admin", description="Tools for operators.")
    commands = parser.add_subparsers(dest="command", required=True)
    token = commands.add_parser("token", help="mint a token for the administrators' RPCs")
    token.add_argument("--role", choices=("service_role",), default="service_role")
    token.add_argument("--ttl", type=int, default=3600, help="seconds until it ends, at most a day")
    given = parser.parse_args(arguments)
    if not 0 < given.ttl <= DAY:
        parser.error("--ttl must be from 1 to 86400 seconds")
    settings = load(TokenSettings)
    try:
        keys = KeySetFile(settings.jwt_keyset_file)
        tokens = AccessTokens(
            keys,
            SystemClock(),
            SystemIds(),
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            ttl=given.ttl,
        )
        sys.stdout.write(tokens.for_service_role(given.ttl) + "\n")
    except KeySetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
