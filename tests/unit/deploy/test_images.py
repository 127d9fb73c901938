"""Images that are not built here: named in one place, by digest wherever one is known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from deploy import images
from deploy.images import Image
from deploy.local.layout import ROOT

DIGEST = f"sha256:{'ab' * 32}"


def named() -> set[str]:
    """Every image that a file names and no target of ours builds."""
    found: set[str] = set()
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text(encoding="utf-8")
    arguments = dict(re.findall(r"^ARG ([A-Z]+)=(\S+)$", dockerfile, re.MULTILINE))
    stages = re.findall(r"^FROM \S+ AS (\S+)", dockerfile, re.MULTILINE)
    for base in re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE):
        found |= {arguments[base[2:-1]]} if base.startswith("${") else {base} - set(stages)
    for name in ("compose.yaml", "websdk.yaml"):
        parts = yaml.safe_load((ROOT / "deploy/compose" / name).read_text(encoding="utf-8"))["services"]
        found |= {
            part["image"]
            for part in parts.values()
            if "image" in part and not part["image"].startswith("${SIGNGATE_IMAGES")
        }
    for path in (ROOT / "deploy/k8s").rglob("*.yaml"):
        found |= set(re.findall(r"^ +-? ?image: (?!signgate/)(\S+)$", path.read_text("utf-8"), re.MULTILINE))
    return found


def test_every_image_of_others_is_in_the_table_and_named_as_it_says() -> None:
    assert named() == {image.reference for image in images.images().values()}


def test_a_digest_goes_wherever_the_image_is_named() -> None:
    known = {name: Image(one.image, one.tag, DIGEST) for name, one in images.images().items()}
    everything = "".join(images.pinned(path.read_text("utf-8"), known) for path in images.FILES)
    for image in known.values():
        assert f"{image.image}:{image.tag}@{DIGEST}" in everything
        assert not re.search(rf"[ =]{re.escape(image.name)}$", everything, re.MULTILINE)
    again = images.pinned(everything, known)
    assert again == everything
    without = {name: Image(one.image, one.tag, "") for name, one in known.items()}
    assert "@sha256" not in images.pinned(everything, without)


@pytest.mark.parametrize("text", ["latest", "sha256:ab", f"sha512:{'a' * 64}", f"{DIGEST} "])
def test_a_digest_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the digest must read"):
        Image("redis", "7", text)


def test_a_release_is_refused_without_digests_and_a_check_only_names_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"redis": Image("redis", "7", ""), "postgres": Image("postgres", "18", DIGEST)}
    monkeypatch.setattr(images, "images", lambda: known)
    monkeypatch.setattr("sys.argv", ["images"])
    assert images.main() == 0
    assert capsys.readouterr().err == "images without a digest (deploy/images.toml): redis:7\n"
    monkeypatch.setattr("sys.argv", ["images", "--pinned"])
    assert images.main() == 1
    known["redis"] = Image("redis", "7", DIGEST)
    assert images.main() == 0


def test_docker_is_asked_for_each_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A docker that answers by the image's name stands in for a registry."""
    docker = tmp_path / "docker"
    digests = {
        image.name: f"sha256:{number:064x}" for number, image in enumerate(images.images().values(), start=1)
    }
    answers = "\n".join(f"  {name}) echo {digest};;" for name, digest in digests.items())
    docker.write_text(f'#!/bin/sh\nfor last; do :; done\ncase "$last" in\n{answers}\nesac\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    source = tmp_path / "images.toml"
    source.write_text(images.SOURCE.read_text("utf-8"))
    images.resolve(source)
    assert {image.name: image.digest for image in images.images(source).values()} == digests
    before, after = images.SOURCE.read_text("utf-8"), source.read_text("utf-8")
    assert re.sub('digest = ".*"', "", after) == re.sub('digest = ".*"', "", before), "comments stay"
