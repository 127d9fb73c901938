"""`python -m services.keys` serves; `python -m services.keys peppers` counts keys by pepper version."""

import asyncio
import sys

from servicekit.config import load
from servicekit.runner import run
from services.keys.config import KeysSettings
from services.keys.pepper_report import report
from services.keys.server import compose

if sys.argv[1:] == ["peppers"]:
    raise SystemExit(asyncio.run(report(load(KeysSettings))))
if sys.argv[1:]:
    raise SystemExit("usage: python -m services.keys [peppers]")
run("keys", load(KeysSettings), compose)
