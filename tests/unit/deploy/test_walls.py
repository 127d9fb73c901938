"""What each container is given and whom it shares a network with, in compose and on Kubernetes.

Over what `docker compose config` and kustomize make of the files: what the engine or the cluster is told.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from deploy import rendered
from deploy.local.layout import ROOT
from deploy.migrate import ADMIN_DSN
from deploy.secrets import in_containers
from deploy.settings import table
from servicekit import stores
from tests.unit.deploy.dockerfile import stages, with_a_browser
from tests.unit.deploy.kubernetes import OVERLAYS, WITH_BROWSER, Document, find, overlay, pods, secret_sources

COMPOSE = ROOT / "deploy" / "compose"
SERVICES = set(table().services)
STORES = {"postgres", "redis"}
SECRETIVE = re.compile(r"PASSWORD|SECRET|TOKEN|PEPPER|KEYSET|_KEYS?$|DSN|REDIS_URL|CREDENTIAL|PRIVATE")
Part = dict[str, Any]


@cache
def _compose() -> str:
    """compose.yaml and websdk.yaml together, with every profile."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("SIGNGATE", "COMPOSE"))
    }
    files = [word for name in ("compose.yaml", "websdk.yaml") for word in ("--file", name)]
    done = subprocess.run(
        [
            *(str(Path(sys.executable).with_name("docker-compose")), *files),
            *("--env-file", "/dev/null", "--profile", "*", "config", "--format", "json"),
        ],
        cwd=COMPOSE,
        env=environment
        | {"SIGNGATE_WEBSDK_SCRIPT": "./script.js", "SIGNGATE_WEBSDK_SCRIPT_SHA256": "0" * 64},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def compose() -> Part:
    document: Part = json.loads(_compose())
    return document


PARTS: dict[str, Part] = compose()["services"]
each = pytest.mark.parametrize("name", sorted(PARTS))
every_overlay = pytest.mark.parametrize("name", [*OVERLAYS, *WITH_BROWSER])


def neighbours(name: str) -> set[str]:
    """Whom a container shares a network with."""
    mine = set(PARTS[name].get("networks") or ())
    return {
        other for other, part in PARTS.items() if other != name and mine & set(part.get("networks") or ())
    }


def given(part: Part) -> set[str]:
    return {secret["source"] for secret in part.get("secrets", ())}


class TestEveryContainer:
    """Of compose."""

    @each
    def test_it_can_gain_no_right_and_write_on_no_root(self, name: str) -> None:
        part = PARTS[name]
        assert part["read_only"] is True
        assert part["cap_drop"] == ["ALL"]
        assert part["security_opt"] == ["no-new-privileges:true"]
        # As root, the job that makes the secrets writes into a folder of another user's; it has no network.
        assert part.get("cap_add", []) == (["DAC_OVERRIDE", "FOWNER"] if name == "secrets" else [])
        assert not {"privileged", "devices", "pid", "ipc", "uts", "userns_mode", "volumes_from"} & part.keys()
        assert part.get("network_mode", "none") == "none"

    @each
    def test_it_has_limits(self, name: str) -> None:
        limits = PARTS[name]["deploy"]["resources"]["limits"]
        assert int(limits["memory"]) > 0
        assert limits["pids"] > 0

    @each
    def test_it_runs_as_nobody(self, name: str) -> None:
        """Our images say so themselves; of others we don't know it, so it is said here."""
        part = PARTS[name]
        if name == "secrets":
            assert part["network_mode"] == "none"  # as the user who shall own the files
        elif "build" in part:
            target = part["build"]["target"]
            while target in stages() and "USER " not in stages()[target][1]:
                target = stages()[target][0]
            users = re.findall(r"^USER (\S+)", stages()[target][1], re.MULTILINE)
            assert users[-1] == "10001:10001"
        else:
            assert int(part["user"].partition(":")[0]) > 0

    @each
    def test_it_mounts_nothing_of_the_machines_that_it_can_write_and_no_engine(self, name: str) -> None:
        for volume in PARTS[name].get("volumes", ()):
            assert "docker.sock" not in json.dumps(volume)
            if volume["type"] == "bind":
                assert volume.get("read_only") or name == "secrets", volume
                assert Path(volume["source"]).is_relative_to(ROOT / "deploy"), volume
            else:
                assert volume["type"] == "volume"
                owners = {
                    other
                    for other, part in PARTS.items()
                    for one in part.get("volumes", ())
                    if one["source"] == volume["source"]
                }
                assert owners == {name}, "a shared volume is a way from one to the other"

    @each
    def test_no_secret_stands_in_its_environment(self, name: str) -> None:
        for setting, value in (PARTS[name].get("environment") or {}).items():
            if str(value).startswith("/run/secrets/"):
                assert value.removeprefix("/run/secrets/") in given(PARTS[name]), setting
            elif SECRETIVE.search(setting) and value:
                pytest.fail(f"{setting} is told in the environment")

    def test_its_secrets_are_the_ones_that_nobody_else_needs(self) -> None:
        """Services' are held against settings.toml elsewhere; a secret of several names them here."""
        several: dict[str, set[str]] = {}
        for name, part in PARTS.items():
            for secret in given(part):
                several.setdefault(secret, set()).add(name)
        assert len(several.pop("tls_ca.pem")) > len(SERVICES), "it is public, and there to be trusted"
        shared = {secret: holders for secret, holders in several.items() if len(holders) > 1}
        for secret, holders in shared.items():
            if secret.startswith("postgres_dsn_"):
                assert holders == {secret.removeprefix("postgres_dsn_"), "migrate"}
        for secret, holders in several.items():
            for prefix in ("service_key_", "tls_"):
                if secret.startswith(prefix):
                    assert holders == {Path(secret.removeprefix(prefix)).stem}
        assert "tls_ca.key" not in compose()["secrets"]
        assert several["signing_keyset"] == {"signer"}
        assert several["jwt_keyset"] == {"auth"}
        assert several["postgres_superuser"] == {"postgres"}
        assert several["redis"] == {"redis"}
        # By it services know the edge: it opens nothing.
        assert several.pop("edge_proof") == {"envoy"}
        assert not {"envoy", "browser", "prometheus", "mail", "secrets"} & set().union(*several.values())


class TestNetworks:
    """Of compose: a network has no ports, so a part that shares one reaches all of the other."""

    def test_only_what_must_be_reached_or_must_call_out_is_on_a_network_that_is_not_internal(self) -> None:
        document = compose()
        open_ones = {
            name for name, network in document["networks"].items() if not (network or {}).get("internal")
        }
        members = {
            network: {name for name, part in PARTS.items() if network in (part.get("networks") or ())}
            for network in document["networks"]
        }
        assert {name: members[name] for name in open_ones} == {
            "front": {"envoy"},
            "dashboards": {"grafana"},
            "outside": {"auth", "logger", "mail"},
        }

    def test_published_is_the_edge_and_on_this_machine_unless_an_operator_says_so(self) -> None:
        published = {
            (name, port["target"], port["host_ip"])
            for name, part in PARTS.items()
            for port in part.get("ports", ())
        }
        assert published == {("envoy", 8080, "127.0.0.1"), ("grafana", 3000, "127.0.0.1")}
        assert all(ipaddress.ip_address(address).is_loopback for _, _, address in published)

    def test_a_store_is_reached_by_those_who_are_given_its_password_and_by_nobody_else(self) -> None:
        for store, prefix in {"postgres": "postgres_dsn_", "redis": "redis_url"}.items():
            assert neighbours(store) == {
                name
                for name, part in PARTS.items()
                if any(secret.startswith(prefix) for secret in given(part))
            }

    def test_whoever_faces_strangers_reaches_no_store(self) -> None:
        for name in ("envoy", "browser", "prometheus", "grafana", "mail"):
            assert not neighbours(name) & STORES
        assert neighbours("envoy") == SERVICES | {"prometheus"}
        assert neighbours("grafana") == {"prometheus"}


class TestTheBrowser:
    """S36: Chromium runs a script that is not ours."""

    def test_one_image_has_one_and_it_is_not_a_services(self) -> None:
        assert with_a_browser() == {"browser"}

    def test_what_runs_one_in_compose_has_no_secret_no_volume_and_one_neighbour(self) -> None:
        running = {
            name for name, part in PARTS.items() if part.get("build", {}).get("target") in with_a_browser()
        }
        assert running == {"browser"}
        part = PARTS["browser"]
        assert not part.get("secrets")
        assert not part.get("configs")
        assert not part.get("volumes")
        assert not part.get("environment")
        assert neighbours("browser") == {"signer"}
        assert compose()["networks"]["browser"]["internal"] is True

    def test_what_has_signing_keys_or_a_stores_password_has_none_in_compose(self) -> None:
        for name, part in PARTS.items():
            if given(part):
                assert part.get("build", {}).get("target") not in with_a_browser(), name
        assert PARTS["signer"]["environment"]["SIGNGATE_WEBSDK_BROWSER_URL"] == (
            f"ws://browser:{table().container_ports['browser']}"
        )

    @pytest.mark.parametrize("name", WITH_BROWSER)
    def test_nor_on_kubernetes(self, name: str) -> None:
        documents = overlay(name)
        running = {
            workload
            for workload, template in pods(documents).items()
            for container in containers(template)
            if image_of(container) in with_a_browser()
        }
        assert running == {"browser"}
        spec = pods(documents)["browser"]["spec"]
        assert len(spec["containers"]) == 1
        assert "initContainers" not in spec
        assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} == {"emptyDir"}
        (container,) = spec["containers"]
        assert not {"env", "envFrom"} & container.keys()
        account = find(documents, "ServiceAccount", spec["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False
        assert account["metadata"]["name"] not in {
            template["spec"].get("serviceAccountName")
            for workload, template in pods(documents).items()
            if workload != "browser"
        }

    def test_no_way_of_running_turns_its_walls_off(self) -> None:
        """Neither in what is committed nor in what a container is told."""
        told = json.dumps([PARTS, *(overlay(name) for name in WITH_BROWSER)])
        assert "UNSAFE_NO_SANDBOX" not in told
        assert "WEBSDK_SANDBOX" not in told


def containers(template: Document) -> list[Document]:
    spec = template["spec"]
    return [*spec["containers"], *spec.get("initContainers", ())]


def image_of(container: Document) -> str:
    """Without registry and tag."""
    name: str = container["image"].rpartition("/")[2].partition(":")[0]
    return name


class TestEveryPod:
    @every_overlay
    def test_it_has_nothing_of_the_nodes(self, name: str) -> None:
        for workload, template in pods(overlay(name)).items():
            spec = template["spec"]
            assert (
                not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"} & spec.keys()
            )
            kinds = {kind for volume in spec.get("volumes", ()) for kind in volume if kind != "name"}
            assert kinds <= {"emptyDir", "configMap", "secret", "projected"}, workload
            assert not [
                port for one in containers(template) for port in one.get("ports", ()) if "hostPort" in port
            ]

    @every_overlay
    def test_secrets_are_files_each_named_and_never_environment(self, name: str) -> None:
        for workload, template in pods(overlay(name)).items():
            for container in containers(template):
                sources = [source for source in container.get("envFrom", ()) if "secretRef" in source]
                values = [
                    one for one in container.get("env", ()) if "secretKeyRef" in one.get("valueFrom", {})
                ]
                assert not sources + values, workload
            for volume in template["spec"].get("volumes", ()):
                for source in secret_sources(volume):
                    assert source["items"], "each by its name: not all that the Secret has"

    @every_overlay
    def test_keys_and_peppers_have_one_holder(self, name: str) -> None:
        holders: dict[str, set[str]] = {}
        for workload, template in pods(overlay(name)).items():
            for volume in template["spec"].get("volumes", ()):
                for source in secret_sources(volume):
                    for item in source["items"]:
                        holders.setdefault(item["key"], set()).add(workload)
        holders.pop("tls_ca.pem")
        for key, who in holders.items():
            if key.startswith("tls_"):
                assert who == {Path(key.removeprefix("tls_")).stem}
            if key.startswith("service_key_"):
                jobs = {"reconcile"} if key == "service_key_logger" else set()
                assert who == {key.removeprefix("service_key_")} | jobs
        assert holders["signing_keyset"] == {"signer"}
        assert holders["jwt_keyset"] == holders["token_pepper"] == {"auth"}
        assert holders["key_pepper"] == {"keys"}
        assert holders["postgres_dsn_admin"] == {"migrate"}
        assert holders.pop("edge_proof") == {"envoy"}  # by it services know the edge: it opens nothing
        assert "browser" not in set().union(*holders.values())
        assert "envoy" not in set().union(*holders.values())


class TestTls:
    """Between containers nothing that is secret goes in plain text."""

    @pytest.mark.parametrize("service", sorted(SERVICES))
    def test_a_service_has_a_certificate_and_checks_those_of_peers_and_redis(self, service: str) -> None:
        wanted = rendered.tls(table().services[service])
        assert set(wanted) == {
            *("SIGNGATE_TLS_CERT", "SIGNGATE_TLS_KEY", "SIGNGATE_TLS_CA", "SIGNGATE_REDIS_CA"),
        }
        assert PARTS[service]["environment"].items() >= wanted.items()
        for name in OVERLAYS:
            documents = overlay(name)
            (container,) = pods(documents)[service]["spec"]["containers"]
            source = container["envFrom"][0]["configMapRef"]["name"]
            assert find(documents, "ConfigMap", source)["data"].items() >= wanted.items()

    @pytest.mark.parametrize("service", sorted(SERVICES))
    def test_no_store_may_be_reached_in_plain_text_until_an_operator_says_so(self, service: str) -> None:
        assert PARTS[service]["environment"]["SIGNGATE_PLAINTEXT_STORES"] == ""
        for name in OVERLAYS:
            site = (ROOT / "deploy/k8s/overlays" / name / "site.env").read_text(encoding="utf-8")
            assert re.search(r"^SIGNGATE_PLAINTEXT_STORES=$", site, re.MULTILINE)

    def test_connection_strings_check_the_stores_certificates(self, tmp_path: Path) -> None:
        folder = in_containers(tmp_path)
        folder.ensure()
        dsns = {name: folder.read(name) for name in (*table().database_roles().values(), ADMIN_DSN)}
        for name, dsn in dsns.items():
            assert stores.postgres_in_clear(dsn, {}) == [], name
            asked = parse_qs(urlsplit(dsn).query)
            assert asked == {"sslmode": ["verify-full"], "sslrootcert": ["/run/secrets/tls_ca.pem"]}
        urls = [path.name for path in tmp_path.iterdir() if path.name.startswith("redis_url")]
        assert urls
        assert [name for name in urls if not folder.read(name).startswith("rediss://")] == []

    def test_the_edge_holds_each_service_to_its_name(self) -> None:
        for path in (COMPOSE / "envoy.yaml", ROOT / "deploy/k8s/base/envoy.yaml"):
            edge = yaml.safe_load(path.read_text(encoding="utf-8"))
            inside = [one for one in edge["static_resources"]["clusters"] if one["type"] == "STRICT_DNS"]
            assert len(inside) > len(SERVICES)
            for cluster in inside:
                (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
                host = endpoint["endpoint"]["address"]["socket_address"]["address"]
                told = cluster["transport_socket"]["typed_config"]
                validation = told["common_tls_context"]["combined_validation_context"]
                source = validation["validation_context_sds_secret_config"]["sds_config"][
                    "path_config_source"
                ]
                written = yaml.safe_load(
                    (path.parent / Path(source["path"]).name).read_text(encoding="utf-8")
                )
                (secret,) = written["resources"]
                assert secret["validation_context"]["trusted_ca"] == {"filename": str(rendered.SERVICES_CA)}
                (name,) = validation["default_validation_context"]["match_typed_subject_alt_names"]
                assert name == {"san_type": "DNS", "matcher": {"exact": host}}
                assert cluster["name"] in {host, f"{host}_http", f"{host}_streams"}

    def test_postgresql_takes_nobody_from_elsewhere_without_it(self) -> None:
        hba = (ROOT / "deploy/postgres/pg_hba.conf").read_text(encoding="utf-8")
        rules = [line.split() for line in hba.splitlines() if line and not line.startswith("#")]
        assert {rule[0] for rule in rules} == {"local", "host", "hostssl"}
        for rule in rules:
            if rule[0] == "host":
                assert ipaddress.ip_network(rule[3]).is_loopback
            if rule[0] != "local":
                assert rule[-1] == "scram-sha-256"
        (pod,) = pods(overlay("single-node"))["postgres"]["spec"]["containers"]
        for told in (" ".join(PARTS["postgres"]["command"]), " ".join(pod["args"])):
            assert "--ssl=on" in told
            assert "--hba_file=/etc/signgate/pg_hba.conf" in told

    def test_redis_has_no_port_without_it(self) -> None:
        conf = (ROOT / "deploy/redis/tls.conf").read_text(encoding="utf-8")
        assert re.search(r"^port 0$", conf, re.MULTILINE)
        (pod,) = pods(overlay("single-node"))["redis"]["spec"]["containers"]
        for told in (PARTS["redis"]["command"], pod["args"]):
            assert "/etc/redis/tls.conf" in told
