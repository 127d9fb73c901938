"""What a service does not need is not in its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from deploy.settings import table

HEAVY = ("greenlet", "httpx", "opentelemetry.sdk", "playwright", "pyarrow", "rich", "segno", "zxcvbn")


@pytest.mark.parametrize("service", table().services)
def test_what_only_some_deployments_use_is_not_loaded(service: str) -> None:
    """Tracing, webhooks, the browser, Parquet and QR codes: each where it is asked for."""
    program = f"import sys, services.{service}.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(HEAVY) & set(done.stdout.split())
