"""The Kubernetes manifests by checkov's policies, and that it sees what it should."""

from __future__ import annotations

import copy
import json
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.environments import environment
from tests.unit.deploy.kubernetes import OVERLAYS, WITH_BROWSER, Document, overlay, pods

LOCK = Path(__file__).with_name("checkov.lock")
LET_BE = {
    "CKV_K8S_11": "no CPU limits: they slow a pod down while its node is idle; requests share what is short",
    "CKV_K8S_15": "pulled once: a tag is a release, which does not change",
    "CKV_K8S_43": "our own images' digests are their builder's to know; others': deploy/images.toml",
}
"""Policies that do not hold here, and why."""


def spoil(documents: list[Document]) -> list[Document]:
    spoiled = copy.deepcopy(documents)
    keys = pods(spoiled)["keys"]["spec"]
    keys["containers"][0]["securityContext"] = {"privileged": True}
    keys["containers"][0].pop("readinessProbe")
    keys["hostNetwork"] = True
    return spoiled


SPOILED = {
    "CKV_K8S_9": "no readiness probe",
    "CKV_K8S_16": "privileged",
    "CKV_K8S_19": "the host's network",
    "CKV_K8S_22": "writes on its root",
    "CKV_K8S_37": "capabilities",
}


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """What failed, by file. One run for all: it takes a while to start."""
    folder = tmp_path_factory.mktemp("manifests")
    files = {name: overlay(name) for name in (*OVERLAYS, *WITH_BROWSER)}
    for name, documents in {**files, "spoiled": spoil(files["production"])}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(documents), encoding="utf-8")
    checkov = environment(LOCK).with_name("checkov")
    command = [str(checkov), "--directory", str(folder), "--framework", "kubernetes", "--output", "json"]
    done = subprocess.run(
        [*command, "--skip-check", ",".join(LET_BE), "--skip-download", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 1, f"it is to fail for the spoiled one: {done.stderr}"
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    found: dict[str, set[str]] = defaultdict(set)
    for finding in report["results"]["failed_checks"]:
        found[Path(finding["file_path"]).stem].add(
            f"{finding['check_id']} {finding['check_name']}: {finding['resource']}"
        )
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [*OVERLAYS, *WITH_BROWSER])
def test_no_policy_is_broken(findings: dict[str, set[str]], name: str) -> None:
    assert not findings[name]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("policy", SPOILED)
def test_a_broken_policy_is_found(findings: dict[str, set[str]], policy: str) -> None:
    (found,) = (one for one in findings["spoiled"] if one.startswith(f"{policy} "))
    assert found.endswith("keys")
