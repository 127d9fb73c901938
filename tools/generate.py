"""Generate Python, type stubs and the descriptor set from protos/ into gen/.

`python -m tools.generate` writes; with `--check` it writes into a temporary folder, compares, names
every file that differs, and exits 1 if there is one. Nothing under gen/ is ever edited by hand.

The descriptor set (gen/signgate.binpb) is what Envoy transcodes REST with.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.resources
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
GEN = ROOT / "gen"
PACKAGE = "signgate"
DESCRIPTORS = "signgate.binpb"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="compare with what is committed instead of writing"
    )
    if not parser.parse_args().check:
        shutil.rmtree(GEN / PACKAGE, ignore_errors=True)
        return generate(GEN)
    with tempfile.TemporaryDirectory() as scratch:
        status = generate(Path(scratch))
        differing = sorted(differences(Path(scratch), GEN)) if status == 0 else []
    for name in differing:
        print(f"gen/{name} is not what protos/ gives: run `make gen` and commit", file=sys.stderr)
    return status or int(bool(differing))


def generate(out: Path) -> int:
    """Run protoc over every file of protos/ into `out`; returns its exit status."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(str(path) for path in PROTOS.rglob("*.proto"))
    includes = [f"--proto_path={path}" for path in (PROTOS, *dependencies())]
    # protoc finds mypy-protobuf's plug-ins beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    status = protoc.main(
        [
            "protoc",
            *includes,
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *files,
        ]
    )
    # Errors carry their details as Any: Envoy can only write those as JSON whose types it knows.
    details = ["google/rpc/error_details.proto", "google/rpc/status.proto"]
    status = status or protoc.main(
        [
            "protoc",
            *includes,
            f"--descriptor_set_out={out / DESCRIPTORS}",
            "--include_imports",
            *files,
            *details,
        ]
    )
    (out / PACKAGE / "py.typed").touch()
    return int(status)


def dependencies() -> list[Path]:
    """Where google/protobuf (grpcio-tools) and google/api (googleapis-common-protos) come from."""
    tools = importlib.resources.files("grpc_tools") / "_proto"
    spec = importlib.util.find_spec("google.api.annotations_pb2")
    if spec is None or spec.origin is None:
        message = "googleapis-common-protos is not installed: run `make setup`"
        raise SystemExit(message)
    return [Path(str(tools)), Path(spec.origin).parents[2]]


def differences(new: Path, old: Path) -> set[str]:
    """Names of generated files that exist on one side only, or with other bytes."""

    def listing(top: Path) -> set[str]:
        found = (path for path in (top / PACKAGE).rglob("*") if path.suffix in {".py", ".pyi", ".typed"})
        return {str(path.relative_to(top)) for path in found} | {DESCRIPTORS}

    mine, theirs = listing(new), listing(old)
    common = mine & theirs
    return (mine ^ theirs) | {n for n in common if not filecmp.cmp(new / n, old / n, shallow=False)}


if __name__ == "__main__":
    sys.exit(main())
