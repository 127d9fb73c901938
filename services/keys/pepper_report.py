"""How many keys are under which pepper: which peppers may leave the configuration."""

from __future__ import annotations

import sys
from typing import Final

from servicekit.errors import Unavailable
from servicekit.postgres import open_database
from services.keys.config import KeysSettings
from services.keys.record_store import RecordStore

_header: Final = f"{'pepper':>6}  {'keys':>8}  {'working':>8}  note\n"


async def report(settings: KeysSettings) -> int:
    """Print a line a version. Exit status 1 when keys are under a pepper that is not configured."""
    keyring = settings.keyring()
    try:
        async with open_database(settings.postgres_dsn.get_secret_value(), name="keys-report") as database:
            counted = await RecordStore(database).pepper_versions()
    except Unavailable as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    keys = {version: (total, working) for version, total, working in counted}
    missing = False
    sys.stdout.write(_header)
    for version in sorted(keys.keys() | keyring.secrets.keys()):
        total, working = keys.get(version, (0, 0))
        configured = version in keyring.secrets
        note = "newest: new keys are hashed under it" if version == keyring.current else ""
        if not configured:
            note = "NOT CONFIGURED: these keys can't be checked" if total else ""
            missing = missing or working > 0
        elif version != keyring.current:
            note = "moves as keys are used" if working else "no working key is left: may be removed"
        sys.stdout.write(f"{version:>6}  {total:>8}  {working:>8}  {note}\n")
    return int(missing)
