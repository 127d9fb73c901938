"""The edge's configuration, checked or printed.

python -m deploy.envoy --check              have Envoy itself read it, without starting anything
python -m deploy.envoy --trusted-hops 1     print that of containers, behind so many load balancers that
                                            write x-forwarded-for
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from deploy import rendered
from deploy.envoy import render
from deploy.local.edge import local_edge
from deploy.local.layout import ROOT, Layout, envoy_binary


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.envoy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--check", action="store_true")
    wanted.add_argument("--trusted-hops", type=int)
    arguments = parser.parse_args()
    if not arguments.check:
        sys.stdout.write(render.render(rendered.edge(arguments.trusted_hops)))
        return 0
    local = local_edge(Layout(run=ROOT / ".run", replicas={"signer": 2}))
    # Its files are where they are on this machine.
    containers = replace(rendered.edge(), descriptors=local.descriptors, console_at=None)
    return _read_by_envoy(local) or _read_by_envoy(containers)


def _read_by_envoy(edge: render.Edge) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "envoy.yaml"
        render.write(edge, path)
        result = subprocess.run(
            [
                str(envoy_binary()),
                *("--mode", "validate", "--config-path", str(path), "--log-level", "warning"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode:
        print(result.stdout + result.stderr, file=sys.stderr)
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
