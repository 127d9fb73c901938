"""Drive targets by coverage with atheris (libFuzzer): `python run.py key token -max_total_time=20`.

Runs in an environment of its own; `make fuzz` sets it up. Each target has a corpus in .build/fuzz that
grows from run to run; an input that breaks one is written beside it and the run fails.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def drive(name: str, options: list[str]) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris  # type: ignore[import-untyped]  # noqa: PLC0415

    with atheris.instrument_imports(include=["servicekit", "services", "jwt", "starlette"]):
        from tests.fuzz.targets import TARGETS, seeds  # noqa: PLC0415

    corpus = ROOT / ".build" / "fuzz" / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    target = TARGETS[name]
    crashes = f"-artifact_prefix={corpus.parent}/{name}-"
    atheris.Setup(
        [name, str(corpus), crashes, "-max_len=4096", "-verbosity=0", "-print_final_stats=1", *options],
        target,
    )
    atheris.Fuzz()


def main() -> int:
    """One process a target, in turn: libFuzzer takes the whole process."""
    names = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    options = [argument for argument in sys.argv[1:] if argument.startswith("-")]
    if len(names) == 1:
        drive(names[0], options)
    failed = []
    for name in names:
        sys.stdout.write(f"· {name}\n")
        sys.stdout.flush()
        command = [sys.executable, __file__, name, *options]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(name)
    sys.stdout.write(f"fuzz: {'failed: ' + ', '.join(failed) if failed else 'all good'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
