"""The manifests, as kustomize makes them: valid by Kubernetes' own schemas, and at one with settings.toml.

What a schema can't show, docs/kubernetes.md lists as not verified.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils

from deploy import rendered
from deploy.local.layout import ROOT
from deploy.settings import table
from services.signer.config import SignerSettings
from tests.unit.deploy.kubernetes import (
    NAME,
    OVERLAYS,
    WITH_BROWSER,
    Document,
    disagreements,
    find,
    kustomize,
    overlay,
    pods,
    secret_sources,
)

VERSIONS = sorted(set(utils.all_versions()), key=lambda version: [int(part) for part in version.split(".")])[
    -3:
]
"""The newest three that the schemas are there for."""
WITHOUT_SCHEMA = {"ServiceMonitor", "PrometheusRule"}
"""Of CRDs, whose schemas are the cluster's: their fields are held against lists below."""
both = pytest.mark.parametrize("name", OVERLAYS)
Change = Callable[[list[Document]], Any]


@pytest.fixture(autouse=True, scope="module")
def _schemas_are_read_once() -> None:
    utils.schema_contents = cache(utils.schema_contents)


def faults(documents: list[Document], version: str) -> list[str]:
    """What the schemas of a version refuse, unknown fields among it."""
    found = []
    for document in documents:
        if document["kind"] in WITHOUT_SCHEMA:
            continue
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = "/".join(map(str, error.path))
            found.append(f"{document['kind']} {document['metadata']['name']}: {where}: {error.message}")
    return found


@both
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(name: str, version: str) -> None:
    assert faults(overlay(name), version) == []


def test_three_versions_are_held_against() -> None:
    assert len({kubernetes_validate.utils.major_minor(version) for version in VERSIONS}) == 3


def container(documents: list[Document], name: str) -> Document:
    only: Document = pods(documents)[name]["spec"]["containers"][0]
    return only


SLIPS: dict[str, Change] = {
    "a field with a typing error": lambda all_: container(all_, "keys").update(enviromentFrom=[]),
    "a field in the wrong place": lambda all_: find(all_, "Deployment", "keys")["spec"].update(containers=[]),
    "a number as text": lambda all_: container(all_, "keys")["ports"][0].update(containerPort="7102"),
    "a probe of the wrong shape": lambda all_: container(all_, "keys").update(
        livenessProbe={"httpGet": {"prot": 1}}
    ),
    "a policy with a typing error": lambda all_: find(all_, "NetworkPolicy", "deny-all")["spec"].update(
        ingres=[]
    ),
    "a schedule that is none": lambda all_: find(all_, "CronJob", "reconcile")["spec"].pop("schedule"),
}


@pytest.mark.parametrize("slip", SLIPS)
@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_not_valid_is_refused(slip: str, version: str) -> None:
    documents = overlay("single-node")
    SLIPS[slip](documents)
    assert len(faults(documents, version)) == 1


@both
def test_the_manifests_agree_with_the_table(name: str) -> None:
    assert disagreements(overlay(name)) == []


def settings_of(documents: list[Document], name: str) -> Document:
    source = container(documents, name)["envFrom"][0]["configMapRef"]["name"]
    data: Document = find(documents, "ConfigMap", source)["data"]
    return data


def secrets_of(documents: list[Document], name: str) -> list[Document]:
    volumes = pods(documents)[name]["spec"]["volumes"]
    items: list[Document] = next(v for v in volumes if v["name"] == "secrets")["secret"]["items"]
    return items


def site_of(documents: list[Document]) -> Document:
    data: Document = next(
        document["data"]
        for document in documents
        if document["kind"] == "ConfigMap" and document["metadata"]["name"].startswith("site-")
    )
    return data


DISAGREEMENTS: dict[str, Change] = {
    "keys: has other ports": lambda all_: container(all_, "keys")["ports"][0].update(containerPort=7103),
    "keys: its Service has other ports": lambda all_: find(all_, "Service", "keys")["spec"]["ports"][
        0
    ].update(port=1),
    "keys: its Service is not headless": lambda all_: find(all_, "Service", "keys")["spec"].pop("clusterIP"),
    "keys: its livenessProbe": lambda all_: container(all_, "keys")["livenessProbe"]["httpGet"].pop("port"),
    "keys: its readinessProbe": lambda all_: container(all_, "keys")["readinessProbe"]["httpGet"].update(
        path="/metrics"
    ),
    "keys: is killed before": lambda all_: pods(all_)["keys"]["spec"].update(
        terminationGracePeriodSeconds=25
    ),
    "keys: is not given the secrets ['key_pepper']": lambda all_: secrets_of(all_, "keys").pop(0),
    "signer: is given the secrets ['postgres_dsn_keys'] without need": lambda all_: secrets_of(
        all_, "signer"
    ).append({"key": "postgres_dsn_keys", "path": "postgres_dsn_keys"}),
    "quota: is not told SIGNGATE_KEYS_ADDR": lambda all_: settings_of(all_, "quota").pop(
        "SIGNGATE_KEYS_ADDR"
    ),
    "quota: SIGNGATE_KEYS_ADDR is not what": lambda all_: settings_of(all_, "quota").update(
        SIGNGATE_KEYS_ADDR="keys:1"
    ),
    "quota: SIGNGATE_SHADOW is set here": lambda all_: settings_of(all_, "quota").update(
        SIGNGATE_SHADOW="all"
    ),
    "quota: SIGNGATE_LEASE is set here": lambda all_: container(all_, "quota").update(
        env=[{"name": "SIGNGATE_LEASE", "value": "9"}]
    ),
    "auth: is not told SIGNGATE_SITE_URL": lambda all_: site_of(all_).pop("SIGNGATE_SITE_URL"),
    "signer: SIGNGATE_SITE_ULR is set here": lambda all_: site_of(all_).update(SIGNGATE_SITE_ULR="https://x"),
    "migrate: is not given the secrets ['postgres_dsn_admin']": lambda all_: pods(all_)["migrate"]["spec"][
        "volumes"
    ][0]["projected"]["sources"].pop(0),
    "envoy: has other ports": lambda all_: container(all_, "envoy")["ports"].pop(0),
    "reconcile: is not given the secrets": lambda all_: container(all_, "reconcile")["volumeMounts"].pop(0),
    "logger: is not there": lambda all_: all_.remove(find(all_, "Deployment", "logger")),
}


@pytest.mark.parametrize("told", DISAGREEMENTS)
def test_a_manifest_that_disagrees_is_told_where(told: str) -> None:
    documents = overlay("production")
    DISAGREEMENTS[told](documents)
    found = disagreements(documents)
    assert [line for line in found if line.startswith(told)], found


@both
def test_the_edge_reads_the_configuration_that_is_made_for_it(name: str) -> None:
    documents = overlay(name)
    source = pods(documents)["envoy"]["spec"]["volumes"][0]["configMap"]["name"]
    base = ROOT / "deploy/k8s/base"  # `make check-gen` says that it is current
    made = {name: (base / name).read_text(encoding="utf-8") for name in ("envoy.yaml", "services_ca.yaml")}
    assert find(documents, "ConfigMap", source)["data"] == made
    drain = " ".join(container(documents, "envoy")["lifecycle"]["preStop"]["exec"]["command"])
    assert f"/127.0.0.1/{table().ports['envoy_admin']} " in drain


@both
def test_what_runs_is_there_and_has_a_version(name: str) -> None:
    for workload, template in pods(overlay(name)).items():
        (only,) = template["spec"]["containers"]
        assert re.fullmatch(r".+:[\w.-]+", only["image"].rpartition("/")[2]), workload
        command = [*only.get("command", ()), *only.get("args", ())]
        if command[:2] == ["python", "-m"]:
            assert importlib.util.find_spec(command[2]), command


def test_compose_and_kubernetes_run_the_same_images() -> None:
    """Ours by the same names, the stores' in the same versions."""
    parts = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text(encoding="utf-8"))["services"]
    base = pods(kustomize(ROOT / "deploy/k8s/base"))
    for name in (*table().services, "envoy", "migrate"):
        image = parts[name]["image"].partition("/")[2].partition(":")[0]
        assert base[name]["spec"]["containers"][0]["image"] == f"signgate/{image}"
    for store in ("postgres", "redis"):
        assert container(overlay("single-node"), store)["image"] == parts[store]["image"]


@pytest.mark.parametrize("name", [*OVERLAYS, *WITH_BROWSER])
def test_every_pod_is_as_restricted_as_the_namespace_demands(name: str) -> None:
    documents = overlay(name)
    labels = find(documents, "Namespace", "signgate")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for workload, template in pods(documents).items():
        spec = template["spec"]
        (only,) = spec["containers"]
        assert spec["automountServiceAccountToken"] is False, workload
        assert spec["securityContext"]["runAsNonRoot"] is True, workload
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, workload
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, workload
        assert {"cpu", "memory"} <= set(only["resources"]["requests"]), workload
        assert "memory" in only["resources"]["limits"], workload


@both
def test_no_secret_is_made_here(name: str) -> None:
    """They are named, and made by whoever runs it."""
    assert "Secret" not in {document["kind"] for document in overlay(name)}


def test_every_secret_that_a_pod_is_given_is_explained() -> None:
    manual = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
    rows = [
        line.split("|") for line in manual.splitlines() if line.startswith("| `") and line.count("|") == 5
    ]
    explained = {(key.strip("`"), row[2].strip(" `")) for row in rows for key in row[1].split()}
    given = {
        (item["key"], secret["secretName"] if "secretName" in secret else secret["name"])
        for name in OVERLAYS
        for template in pods(overlay(name)).values()
        for volume in template["spec"]["volumes"]
        for secret in secret_sources(volume)
        for item in secret["items"]
    }
    assert given <= explained
    assert {secret for _, secret in explained} >= {"signgate", "signgate-admin", "signgate-stores"}
    assert explained - given == set()


@both
def test_selectors_find_what_they_are_meant_for(name: str) -> None:
    documents = overlay(name)
    templates = pods(documents)
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] in {"Service", "PodDisruptionBudget"}:
            selector = spec["selector"].get("matchLabels", spec["selector"])
            found = [w for w, t in templates.items() if selector.items() <= t["metadata"]["labels"].items()]
            assert len(found) == 1, document["metadata"]["name"]
            if document["kind"] == "Service":
                named = {port["name"] for port in templates[found[0]]["spec"]["containers"][0]["ports"]}
                assert {port["targetPort"] for port in spec["ports"]} <= named
        elif document["kind"] == "HorizontalPodAutoscaler":
            find(documents, spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])


def test_in_production_each_deployment_scales_and_survives_a_drained_node() -> None:
    documents = overlay("production")
    deployments = {d["metadata"]["name"] for d in documents if d["kind"] == "Deployment"}
    for kind in ("HorizontalPodAutoscaler", "PodDisruptionBudget"):
        assert {d["metadata"]["name"] for d in documents if d["kind"] == kind} == deployments
    for deployment in deployments:
        spec = find(documents, "Deployment", deployment)["spec"]
        assert "replicas" not in spec, "it would undo the autoscaler's work with each apply"
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        assert {c["topologyKey"] for c in spec["template"]["spec"]["topologySpreadConstraints"]} == {
            "topology.kubernetes.io/zone",
            "kubernetes.io/hostname",
        }
        assert find(documents, "HorizontalPodAutoscaler", deployment)["spec"]["minReplicas"] >= 2


def test_the_signer_scales_by_a_metric_that_it_has() -> None:
    metrics = find(overlay("production"), "HorizontalPodAutoscaler", "signer")["spec"]["metrics"]
    (name,) = (metric["pods"]["metric"]["name"] for metric in metrics if metric["type"] == "Pods")
    assert f"`{name}`" in (ROOT / "docs/metrics.md").read_text(encoding="utf-8")


def test_the_service_monitor_finds_every_metrics_page() -> None:
    """Its CRD's schema is not at hand: its fields are held against these, so that none is misspelled."""
    documents = overlay("production")
    monitor = find(documents, "ServiceMonitor", "signgate")
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    spec = monitor["spec"]
    assert set(spec) == {"jobLabel", "selector", "endpoints"}
    (endpoint,) = spec["endpoints"]
    assert endpoint == {"port": "metrics", "path": "/metrics", "interval": "15s"}
    jobs = {
        document["metadata"]["labels"].get(spec["jobLabel"])
        for document in documents
        if document["kind"] == "Service"
        and spec["selector"]["matchLabels"].items() <= document["metadata"]["labels"].items()
        and endpoint["port"] in {port["name"] for port in document["spec"]["ports"]}
    }
    assert jobs == {*table().services, "envoy"}


def test_the_operator_has_every_rule() -> None:
    """As Prometheus itself has them, whose form the CRD's is."""
    rule = find(overlay("production"), "PrometheusRule", "signgate")
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    files = sorted((ROOT / "deploy/observability/rules").glob("*.yaml"))
    assert len(files) > 1
    groups = [group for path in files for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]]
    assert rule["spec"] == {"groups": groups}
    for group in groups:
        assert set(group) <= {"name", "interval", "rules"}
        for one in group["rules"]:
            assert set(one) <= {"alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations"}


@pytest.mark.parametrize("name", WITH_BROWSER)
@pytest.mark.parametrize("version", VERSIONS)
def test_the_browser_engines_objects_are_valid(name: str, version: str) -> None:
    assert not faults(overlay(name), version)


def test_the_browser_engine_is_configured_as_the_services_read_it() -> None:
    """The signer's settings, made of what its pod is told, with the script's hash as an operator gives it."""
    with_browser = overlay("single-node+websdk")
    told: dict[str, dict[str, str]] = {}
    for name in ("signer", "keys"):
        (container,) = pods(with_browser)[name]["spec"]["containers"]
        told[name] = {
            setting: value
            for source in container["envFrom"]
            if (config := source["configMapRef"]["name"]).startswith(("websdk", "engines"))
            for setting, value in find(with_browser, "ConfigMap", config)["data"].items()
        }
        assert json.loads(told[name]["SIGNGATE_ENGINES"]) == ["native", "websdk"]
    (container,) = pods(with_browser)["signer"]["spec"]["containers"]
    assert container["image"] == "signgate/signer-websdk:1"
    hashes = {one["name"] for one in container["env"]} & {"SIGNGATE_WEBSDK_SCRIPT_SHA256"}
    known = {f"SIGNGATE_{field.upper()}" for field in SignerSettings.model_fields}
    assert told["signer"].keys() | hashes <= known
    assert hashes
    script = Path(told["signer"]["SIGNGATE_WEBSDK_SCRIPT"])
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pods(with_browser)["signer"]["spec"]["volumes"]}
    (item,) = volumes[mounts[str(script.parent)]]["configMap"]["items"]
    assert item["path"] == script.name
    face = find(with_browser, "Service", "browser")
    (port,) = face["spec"]["ports"]
    url = f"ws://{face['metadata']['name']}:{port['port']}"
    assert told["signer"]["SIGNGATE_WEBSDK_BROWSER_URL"] == url
    assert port["port"] == rendered.browser()["port"]


def test_without_the_operators_crds_the_rest_stands_by_itself() -> None:
    assert not WITHOUT_SCHEMA & {document["kind"] for document in overlay("single-node")}
    (ROOT / "deploy/k8s/base").resolve(strict=True)
    assert not WITHOUT_SCHEMA & {document["kind"] for document in kustomize(ROOT / "deploy/k8s/base")}


def test_labels_tell_parts_apart() -> None:
    for name in OVERLAYS:
        for workload, template in pods(overlay(name)).items():
            assert template["metadata"]["labels"][NAME] == workload
