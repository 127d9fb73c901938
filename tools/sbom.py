"""What Signgate is made of, as CycloneDX: `python -m tools.sbom`, which `make sbom` runs.

    .build/sbom/python.cdx.json    requirements.lock: every package, its version, its files' hashes
    .build/sbom/console.cdx.json   console/package-lock.json, by npm itself

Licences are those that packages declare, of what is installed here. The same locks give the same files: they
have no time and no serial number. Each is validated against CycloneDX's own schema; an invalid one is not
written, and the status is 1.

Not in them: what images are built on (deploy/images.toml), and Debian's packages of the browser's image.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL
from pip_requirements_parser import RequirementsFile

ROOT: Final = Path(__file__).parents[1]
LOCK: Final = ROOT / "requirements.lock"
CONSOLE: Final = ROOT / "console"
OUT: Final = ROOT / ".build" / "sbom"
_RANDOM: Final = ("serialNumber",)
_licenses: Final = LicenseFactory()


def python(lock: Path = LOCK) -> dict[str, Any]:
    """The Python packages of a lock. Raises `ValueError` for a line that is not one version with hashes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    bom = Bom(components=_locked(lock))
    bom.metadata.component = Component(
        name=project["name"],
        version=project["version"],
        type=ComponentType.APPLICATION,
        bom_ref=project["name"],
        licenses=[_licenses.make_from_string(project["license"])],
    )
    bom.register_dependency(bom.metadata.component, bom.components)
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return _settled(document)


def console() -> dict[str, Any]:
    """The console's packages, as npm reads its own lock."""
    npm = Path(sys.executable).with_name("npm")
    command = [str(npm), "sbom", "--sbom-format", "cyclonedx", "--package-lock-only"]
    done = subprocess.run(command, cwd=CONSOLE, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    document: dict[str, Any] = json.loads(done.stdout)
    return _settled(document)


def faults(document: dict[str, Any]) -> str:
    """What CycloneDX's schema has against a document; "": nothing."""
    version = SchemaVersion.from_version(document["specVersion"])
    found = JsonStrictValidator(version).validate_str(json.dumps(document))
    return "" if found is None else str(found)[:500]


def _locked(lock: Path) -> Iterator[Component]:
    parsed = RequirementsFile.from_file(str(lock))
    if parsed.invalid_lines:
        raise ValueError(f"{lock.name} has lines that are not requirements: {parsed.invalid_lines[0]}")
    for one in parsed.requirements:
        version = one.get_pinned_version
        if not version or not one.hash_options:
            raise ValueError(f"{lock.name} does not pin {one.name}")
        purl = PackageURL("pypi", None, one.name, version)
        algorithms = [option.removeprefix("--hash=").partition(":") for option in one.hash_options]
        yield Component(
            name=one.name,
            version=version,
            type=ComponentType.LIBRARY,
            purl=purl,
            bom_ref=str(purl),
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for _, _, digest in algorithms],
            licenses=_license(one.name),
        )


def _license(name: str) -> list[License]:
    """What the installed package declares; nothing where it is not installed or says nothing short."""
    try:
        told = metadata.metadata(name).json
    except metadata.PackageNotFoundError:
        return []
    text = str(told.get("license_expression") or told.get("license") or "")
    classified = [
        line.rpartition(" :: ")[2]
        for line in told.get("classifier", ())
        if line.startswith("License :: ") and line != "License :: OSI Approved"
    ]
    if not text or "\n" in text:
        text = classified[0] if classified else ""
    return [_licenses.make_from_string(text)] if text else []


def _settled(document: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between two runs."""
    document = {name: value for name, value in document.items() if name not in _RANDOM}
    document["metadata"].pop("timestamp", None)
    return document


def main() -> int:
    """See the module."""
    OUT.mkdir(parents=True, exist_ok=True)
    for name, document in {"python": python(), "console": console()}.items():
        if wrong := faults(document):
            print(f"the bill of materials {name} is not valid: {wrong}", file=sys.stderr)
            return 1
        path = OUT / f"{name}.cdx.json"
        path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(document['components'])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
