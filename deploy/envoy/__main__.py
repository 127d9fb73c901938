"""The edge's configuration, checked or printed.

python -m deploy.envoy --check              have Envoy itself read it, without starting anything
python -m deploy.envoy --trusted-hops 1     print that of containers, behind so many load balancers that
                                            write x-forwarded-for

With --tls it ends TLS itself. With --out FOLDER it is written there, with the files that it refers to, all
for /etc/envoy.
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
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not arguments.check:
        edge = rendered.edge(arguments.trusted_hops, tls=arguments.tls)
        if arguments.out:
            render.write(edge, arguments.out / "envoy.yaml")
        else:
            sys.stdout.write(render.render(edge))
        return 0
    local = local_edge(Layout(run=ROOT / ".run", replicas={"signer": 2}))
    return max(_read_by_envoy(edge, local) for edge in (local, rendered.edge(), rendered.edge(1, tls=True)))


def _read_by_envoy(edge: render.Edge, local: render.Edge) -> int:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        # Its files are where they are on this machine, or empty where only their being there is checked.
        edge = replace(
            edge,
            descriptors=local.descriptors,
            plugins=local.plugins,
            console_at=None,
            proof=here / "edge_proof",
            sds=here,
            certificate=edge.certificate and here / "tls.crt",
            key=edge.key and here / "tls.key",
            services_ca=edge.services_ca and here / "ca.crt",
        )
        edge.proof.touch()
        path = here / "envoy.yaml"
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
