"""Versions and digests of the images that are not built here: images.toml.

    python -m deploy.images              names those without a digest
    python -m deploy.images --pinned     likewise, and exits 1 if there is one: for a release
    python -m deploy.images --resolve    asks their registry, by docker, and fills images.toml

`deploy.rendered` (`make gen`) writes them into every file that names an image.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
SOURCE: Final = HERE / "images.toml"
FILES: Final = (
    HERE / "docker/Dockerfile",
    HERE / "compose/compose.yaml",
    HERE / "k8s/overlays/single-node/postgres.yaml",
    HERE / "k8s/overlays/single-node/redis.yaml",
)
"""Where images are named."""
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_INSPECT: Final = ("docker", "buildx", "imagetools", "inspect", "--format", "{{.Manifest.Digest}}")


@dataclass(frozen=True)
class Image:
    """One image. `digest` is "sha256:…", or "" where it is not known."""

    image: str
    tag: str
    digest: str

    def __post_init__(self) -> None:
        """Raise `ValueError` for a digest that is none."""
        if self.digest and _DIGEST.fullmatch(self.digest) is None:
            raise ValueError(f"{self.name}: the digest must read sha256: and 64 hexadecimal digits")

    @property
    def name(self) -> str:
        """Image and tag."""
        return f"{self.image}:{self.tag}"

    @property
    def reference(self) -> str:
        """What is pulled: by digest where there is one."""
        return f"{self.name}@{self.digest}" if self.digest else self.name


def images(source: Path = SOURCE) -> dict[str, Image]:
    """The table. Raises `ValueError`."""
    return {name: Image(**entry) for name, entry in tomllib.loads(source.read_text("utf-8")).items()}


def pinned(text: str, known: Mapping[str, Image]) -> str:
    """A file's text with each image of the table named as the table has it."""
    for image in known.values():
        named = rf"^(\s*image: |ARG [A-Z]+=){re.escape(image.image)}:[\w.-]+(@sha256:[0-9a-f]+)?$"
        text = re.sub(named, rf"\g<1>{image.reference}", text, flags=re.MULTILINE)
    return text


def files() -> Iterator[tuple[Path, str]]:
    """Every file that names images, and what it is to say."""
    known = images()
    for path in FILES:
        yield path, pinned(path.read_text(encoding="utf-8"), known)


def resolve(source: Path = SOURCE) -> None:
    """Fill in every digest. Raises `CalledProcessError` when docker can't tell one."""
    text = source.read_text(encoding="utf-8")
    for name, image in images(source).items():
        done = subprocess.run([*_INSPECT, image.name], check=True, capture_output=True, text=True)
        found = Image(image.image, image.tag, done.stdout.strip())
        head, table, rest = text.partition(f"[{name}]")
        filled = f'digest = "{found.digest}"'
        text = head + table + re.sub(r'^digest = ".*"$', filled, rest, count=1, flags=re.MULTILINE)
    source.write_text(text, encoding="utf-8")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pinned", action="store_true", help="exit 1 if an image has no digest")
    parser.add_argument("--resolve", action="store_true", help="ask the registry for every digest")
    told = parser.parse_args()
    if told.resolve:
        resolve()
    loose = [image.name for image in images().values() if not image.digest]
    if loose:
        print(f"images without a digest (deploy/images.toml): {', '.join(loose)}", file=sys.stderr)
    return int(bool(loose) and told.pinned)


if __name__ == "__main__":
    sys.exit(main())
