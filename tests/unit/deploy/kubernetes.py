"""What kustomize makes of an overlay, and where it disagrees with settings.toml."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deploy import rendered
from deploy.local.layout import ROOT
from deploy.settings import Service, table
from servicekit.config import ServiceSettings
from tests.unit.deploy.compose import AUTHORITY, migrations, secrets_of

OVERLAYS = ("single-node", "production")
WITH_BROWSER = tuple(f"{overlay}+websdk" for overlay in OVERLAYS)
"""Overlays of an operator's own: one of ours, and the component `websdk`."""
NAME = "app.kubernetes.io/name"
WORKLOADS = {"Deployment", "StatefulSet", "Job", "CronJob"}
LOGGERS_JOBS = ("partitions", "reconcile")
Document = dict[str, Any]


def kustomize(folder: Path) -> list[Document]:
    """Every object. Fails if kustomize has anything to say beside them."""
    command = [str(Path(sys.executable).with_name("kubectl")), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@cache
def _overlay(name: str) -> str:
    overlay, _, component = name.partition("+")
    if not component:
        return json.dumps(kustomize(ROOT / "deploy/k8s/overlays" / overlay))
    (ROOT / ".build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".build") as folder:
        own = {
            "namespace": "signgate",
            "resources": [f"../../deploy/k8s/overlays/{overlay}"],
            "components": [f"../../deploy/k8s/components/{component}"],
            "images": [
                {"name": f"signgate/{image}", "newTag": "1"} for image in ("browser", "signer-websdk")
            ],
        }
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
        return json.dumps(kustomize(Path(folder)))


def overlay(name: str) -> list[Document]:
    """A fresh copy, to be changed at will. `single-node+websdk`: with a component."""
    documents: list[Document] = json.loads(_overlay(name))
    return documents


def find(documents: list[Document], kind: str, name: str) -> Document:
    """The object of that kind and name. Raises `KeyError`."""
    for document in documents:
        if document["kind"] == kind and document["metadata"]["name"] == name:
            return document
    raise KeyError(f"{kind} {name}")


def pods(documents: list[Document]) -> dict[str, Document]:
    """The pod template of each workload, by its name."""
    found = {}
    for document in documents:
        if document["kind"] in WORKLOADS:
            spec = document["spec"]
            owner = spec["jobTemplate"]["spec"] if document["kind"] == "CronJob" else spec
            found[document["metadata"]["name"]] = owner["template"]
    return found


def disagreements(documents: list[Document]) -> list[str]:
    """One line for each, beginning with the workload that it is about."""
    templates = pods(documents)
    wanted = {*table().services, "envoy", "migrate", "limits", *LOGGERS_JOBS}
    found = [f"{name}: is not there" for name in sorted(wanted - set(templates))]
    for service in table().services.values():
        if service.name in templates:
            found += _service(service, templates[service.name], documents)
    for name in LOGGERS_JOBS:
        if name in templates:
            found += _environment(name, table().services["logger"], templates[name], documents)
            found += _secrets(name, templates[name], _of_job(name) | {AUTHORITY})
    if "migrate" in templates:
        found += _secrets("migrate", templates["migrate"], migrations())
    if "envoy" in templates:
        ports = {"edge": table().ports["edge"], "metrics": table().ports["envoy_metrics"]}
        found += _ports("envoy", templates["envoy"], ports)
    return found


def _of_job(name: str) -> set[str]:
    """The secrets of one of the logger's jobs, which are called by none and need no certificate."""
    logger = table().services["logger"]
    if name == "partitions":
        return {table().database_roles()["signgate_logger"]}
    return secrets_of(logger) - rendered.tls_files(logger)


def _service(service: Service, pod: Document, documents: list[Document]) -> Iterator[str]:
    name = service.name
    yield from _environment(name, service, pod, documents)
    yield from _secrets(name, pod, secrets_of(service))
    yield from _ports(name, pod, dict(service.ports))
    (container,) = pod["spec"]["containers"]
    for probe, path in (
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ):
        # A kubelet's probes by gRPC know no TLS.
        if container.get(probe, {}).get("httpGet") != {"path": path, "port": "metrics"}:
            yield f"{name}: its {probe} does not ask {path} at its metrics port"
    face = find(documents, "Service", name)["spec"]
    if {port["name"]: port["port"] for port in face["ports"]} != dict(service.ports):
        yield f"{name}: its Service has other ports than settings.toml"
    if face.get("clusterIP") != "None":
        yield f"{name}: its Service is not headless, so callers can't balance over its pods"
    grace = ServiceSettings.model_fields["drain_grace"].default
    # It reports itself not ready, drains its calls, then finishes what they left behind, each within bounds.
    if pod["spec"].get("terminationGracePeriodSeconds", 30) <= rendered.LAME_DUCK + 2 * grace:
        yield f"{name}: is killed before it can have stopped in order"


def _environment(name: str, service: Service, pod: Document, documents: list[Document]) -> Iterator[str]:
    (container,) = pod["spec"]["containers"]
    told: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        told |= find(documents, "ConfigMap", source["configMapRef"]["name"])["data"]
    told |= {entry["name"]: entry.get("value", "") for entry in container.get("env", ())}
    wanted = rendered.kubernetes_environment(service)
    every_site = {
        setting for one in table().services.values() for setting in rendered.operators_settings(one)
    }
    for setting in sorted(wanted.keys() | rendered.operators_settings(service)):
        if setting not in told:
            yield f"{name}: is not told {setting}"
        elif setting in wanted and told[setting] != wanted[setting]:
            yield f"{name}: {setting} is not what settings.toml says"
    for setting in sorted(told.keys() - wanted.keys() - every_site):
        yield f"{name}: {setting} is set here and not in settings.toml"


def _ports(name: str, pod: Document, wanted: Mapping[str, int]) -> Iterator[str]:
    (container,) = pod["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
    if ports != wanted:
        yield f"{name}: has other ports than settings.toml"


def _secrets(name: str, pod: Document, wanted: set[str]) -> Iterator[str]:
    (container,) = pod["spec"]["containers"]
    folder = str(rendered.SECRETS)
    mounted = {mount["name"] for mount in container["volumeMounts"] if mount["mountPath"] == folder}
    given: set[str] = set()
    for volume in pod["spec"]["volumes"]:
        if volume["name"] in mounted:
            for source in secret_sources(volume):
                given |= {item["path"] for item in source.get("items", ({"path": "everything"},))}
    if wanted - given:
        yield f"{name}: is not given the secrets {sorted(wanted - given)}"
    if given - wanted:
        yield f"{name}: is given the secrets {sorted(given - wanted)} without need"


def secret_sources(volume: Document) -> list[Document]:
    """What a volume takes from Secrets; nothing, if it is another kind."""
    if "secret" in volume:
        return [volume["secret"]]
    return [copy.copy(source["secret"]) for source in volume.get("projected", {}).get("sources", ())]
