"""The Kubernetes manifests: rendered by kubectl, valid in every field, and as safe as they say.

Kubernetes' own kinds are validated strictly with kubernetes-validate, custom resources with the
closed schemas in crds/. Then the promises: who may trade, when it may be killed, what it may reach.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.deploy.tools import DEPLOY, program, run
from torghut.config import check_live_keys, load
from torghut.domain.errors import ConfigError
from torghut.services.supervisor import SHUTDOWN_S

KUBERNETES = "1.37"
KUSTOMIZE_MIN = 5
OVERLAYS = ("demo", "knative", "live", "paper")
CRDS = Path(__file__).parent / "crds"
GROUPS = ("cnpg.io", "knative.dev", "monitoring.coreos.com")

Manifest = dict[str, Any]

SECRETS = {
    "torghut-database": {"app-url": "postgresql://torghut_app:p@db/torghut", "migrate-url": "x"},
    "torghut-api": {"tokens": "one,two", "metrics-token": "two"},
    "torghut-broker": {"key-id": "key", "secret-key": "secret"},
    "torghut-live-keys": {
        "trading-mode": "live",
        "live-trading-enabled": "true",
        "live-account-number": "123456789",
    },
}


# ---------------------------------------------------------------------- what is looked at


@cache
def kustomize() -> tuple[str, ...]:
    """The command that renders, kubectl's or the program itself; fails where there is none."""
    known = (
        ("kubectl", "kustomize", ("version", "--client"), r"Kustomize Version: v(\d+)\."),
        ("kustomize", "build", ("version",), r"v(\d+)\."),
    )
    for name, verb, ask, pattern in known:
        if shutil.which(name) is not None:
            said = subprocess.run([name, *ask], capture_output=True, text=True).stdout
            version = re.search(pattern, said)
            if version and int(version[1]) >= KUSTOMIZE_MIN:
                return (program(name), verb)
    pytest.fail("neither kubectl (from 1.27 on) nor kustomize 5 is here: see tests/programs.txt")


@cache
def _text(overlay: str) -> str:
    return run(*kustomize(), DEPLOY / "overlays" / overlay)


@cache
def _manifests(overlay: str) -> list[Manifest]:
    return list(yaml.load_all(_text(overlay), Loader=yaml.CSafeLoader))


def rendered(overlay: str) -> list[Manifest]:
    """Every manifest of an overlay, a fresh copy."""
    return copy.deepcopy(_manifests(overlay))


def one(manifests: list[Manifest], kind: str, name: str = "torghut", group: str = "") -> Manifest:
    """The manifest of this kind and name, of this API group if it is named."""
    (found,) = (
        m
        for m in manifests
        if (m["kind"], m["metadata"]["name"]) == (kind, name) and group in m["apiVersion"]
    )
    return found


def daemon(overlay: str) -> Manifest:
    """The pod of the daemon: `spec` of its template."""
    manifests = rendered(overlay)
    if overlay == "knative":
        spec = one(manifests, "Service", group="knative")["spec"]["template"]["spec"]
    else:
        spec = one(manifests, "Deployment")["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Name and spec of every pod that is described."""
    for manifest in manifests:
        template = manifest.get("spec", {}).get("template")
        if template:
            yield f"{manifest['kind']} {manifest['metadata']['name']}", template["spec"]


def values(tree: object) -> Iterator[tuple[str, object]]:
    """Every key with its value, at any depth."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key, value
            yield from values(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from values(item)


def in_one_line(tree: Any) -> Any:
    """The same with every run of white space as one blank."""
    if isinstance(tree, dict):
        return {key: in_one_line(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [in_one_line(item) for item in tree]
    return " ".join(tree.split()) if isinstance(tree, str) else tree


def validate(manifest: Manifest) -> None:
    """Raises ValidationError for a field that is wrong or unknown."""
    if any(group in manifest["apiVersion"] for group in GROUPS):
        schema = yaml.safe_load((CRDS / f"{manifest['kind']}.yaml").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).validate(manifest)
        if manifest["kind"] == "Service":
            _validate_as_pod(manifest)
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def _validate_as_pod(service: Manifest) -> None:
    spec = copy.deepcopy(service["spec"]["template"]["spec"])
    for of_knative in ("containerConcurrency", "timeoutSeconds"):
        spec.pop(of_knative)
    for container in spec["containers"]:
        for probe in ("livenessProbe", "readinessProbe"):
            container[probe]["httpGet"]["port"] = 8080  # Knative fills it in
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)


# ---------------------------------------------------------------------- validity


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid_in_every_field(overlay: str) -> None:
    manifests = rendered(overlay)
    assert len(manifests) > 10
    for manifest in manifests:
        validate(manifest)
    found = [(m["kind"], m["apiVersion"], m["metadata"]["name"]) for m in manifests]
    assert len(found) == len(set(found))
    assert len({m["metadata"]["namespace"] for m in manifests}) == 1


def test_control_a_misspelt_field_is_found() -> None:
    """In every kind there is, of every overlay."""
    kinds = {m["kind"] + m["apiVersion"]: m for o in OVERLAYS for m in rendered(o)}
    assert len(kinds) > 14
    for manifest in kinds.values():
        if manifest["kind"] == "ServiceAccount":
            manifest["automountServiceAccountTokn"] = False
        elif manifest["kind"] == "ConfigMap":
            manifest["dat"] = {}
        else:
            manifest["spec"]["replicass"] = 2
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            validate(manifest)


def test_nothing_is_deprecated() -> None:
    """Kustomize has nothing to warn about."""
    for overlay in OVERLAYS:
        command = [*kustomize(), str(DEPLOY / "overlays" / overlay)]
        assert subprocess.run(command, capture_output=True, text=True).stderr == ""


def test_the_prometheus_rule_is_alerts_yaml() -> None:
    """One source: line breaks inside an expression apart, which Kustomize folds in its own way."""
    source = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
    for overlay in OVERLAYS:
        spec = one(rendered(overlay), "PrometheusRule")["spec"]
        assert in_one_line(spec) == in_one_line(source), "run `make rules`"


# ---------------------------------------------------------------------- promises


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_they_should(overlay: str) -> None:
    """Alive is /healthz, ready is /readyz (story 16), and nobody is killed in haste."""
    (container,) = daemon(overlay)["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    live = container["livenessProbe"]
    assert live["periodSeconds"] * live["failureThreshold"] >= 60
    # /readyz itself waits two seconds for the database
    assert container["readinessProbe"]["timeoutSeconds"] > 2


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_is_killed_before_the_account_is_handed_over(overlay: str) -> None:
    """The grace period is longer than lease, broker time-out and shutdown together (P1, P2)."""
    spec = daemon(overlay)
    settings = environment(overlay)
    needed = (
        float(settings["TORGHUT_LEASE_TTL_S"])
        + float(settings["TORGHUT_BROKER_TIMEOUT_S"])
        + SHUTDOWN_S
    )
    # of a Knative pod the time-out of a request is the grace period too
    grace = spec.get("terminationGracePeriodSeconds") or spec["timeoutSeconds"]
    sleep = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {})
    assert grace > needed + sleep.get("seconds", 0)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_daemon_never_migrates_and_the_job_does(overlay: str) -> None:
    assert daemon(overlay)["containers"][0]["args"] == ["run"]
    job = one(rendered(overlay), "Job", "torghut-migrate")["spec"]["template"]["spec"]
    (container,) = job["containers"]
    assert container["args"] == ["migrate"]
    (env,) = container["env"]
    assert env["valueFrom"]["secretKeyRef"]["key"] == "migrate-url"
    assert container["image"] == daemon(overlay)["containers"][0]["image"]


@pytest.mark.parametrize("overlay", ["demo", "live", "paper"])
def test_two_replicas_one_stands_by(overlay: str) -> None:
    manifests = rendered(overlay)
    deployment = one(manifests, "Deployment")["spec"]
    assert deployment["replicas"] == 2
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    budget = one(manifests, "PodDisruptionBudget")["spec"]
    assert budget["minAvailable"] == 1
    assert budget["selector"] == deployment["selector"]


def test_knative_never_sleeps_and_overlaps_safely() -> None:
    """Min-scale 1, a bounded crowd in one pod, one route; scraping goes around it (story 19)."""
    manifests = rendered("knative")
    template = one(manifests, "Service", group="knative")["spec"]["template"]
    notes = template["metadata"]["annotations"]
    assert int(notes["autoscaling.knative.dev/min-scale"]) == 1
    assert int(notes["autoscaling.knative.dev/max-scale"]) >= 2
    assert 0 < template["spec"]["containerConcurrency"] <= 1000
    kinds = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    assert ("Deployment", "torghut") not in kinds
    assert ("ServiceMonitor", "torghut") not in kinds
    assert ("PodMonitor", "torghut") in kinds
    assert [m["apiVersion"] for m in manifests if (m["kind"], m["metadata"]["name"]) == (
        "Service", "torghut")] == ["serving.knative.dev/v1"]  # fmt: skip


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_come_by_reference(overlay: str) -> None:
    """No Secret is shipped, and nothing secret is a value; the demo's keys open nothing."""
    manifests = rendered(overlay)
    assert [m for m in manifests if m["kind"] == "Secret"] == []
    for manifest in manifests:
        for key, value in values(manifest):
            if re.search(r"PASSWORD|SECRET|TOKEN|KEY_ID|DATABASE_URL", str(key)):
                assert value == "simulator" and overlay == "demo", (key, value)
    for name, spec in pods(manifests):
        for container in spec["containers"]:
            for env in container.get("env", []):
                if re.search(r"PASSWORD|SECRET|TOKEN|KEY|URL|LIVE|MODE", env["name"]):
                    assert "secretKeyRef" in env.get("valueFrom", {}), (name, env)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_confined(overlay: str) -> None:
    """Not root, nothing to write to, no capabilities, known sizes, fixed images."""
    for name, spec in pods(rendered(overlay)):
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        for container in spec["containers"]:
            both = spec.get("securityContext", {}) | container["securityContext"]
            assert both["runAsNonRoot"] is True and both["runAsUser"] > 0, name
            assert both["readOnlyRootFilesystem"] is True, name
            assert both["allowPrivilegeEscalation"] is False, name
            assert both["capabilities"] == {"drop": ["ALL"]}, name
            assert both["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name
            _, _, tag = container["image"].rpartition(":")
            assert tag and tag != "latest" and re.match(r"\d", tag), container["image"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_open_that_need_not_be(overlay: str) -> None:
    policy = one(rendered(overlay), "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert all(rule["from"] for rule in policy["ingress"])
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == ({53, 5432, 8090} if overlay == "demo" else {53, 443, 5432})
    assert all(rule["to"] for rule in policy["egress"])


@pytest.mark.parametrize("overlay", ["knative", "live", "paper"])
def test_a_commit_is_on_two_machines_and_backed_up(overlay: str) -> None:
    """P2: synchronous, required; a backup every day and the log in between."""
    manifests = rendered(overlay)
    cluster = one(manifests, "Cluster", "torghut-db")["spec"]
    synchronous = cluster["postgresql"]["synchronous"]
    assert cluster["instances"] >= 3
    assert (synchronous["number"], synchronous["dataDurability"]) == (1, "required")
    (archiver,) = (p for p in cluster["plugins"] if p["isWALArchiver"])
    store = archiver["parameters"]["barmanObjectName"]
    assert one(manifests, "ObjectStore", store)["spec"]["retentionPolicy"]
    backup = one(manifests, "ScheduledBackup", "torghut-db")["spec"]
    assert backup["cluster"]["name"] == "torghut-db"
    assert {role["name"] for role in cluster["managed"]["roles"]} == {"torghut_app", "torghut_ro"}
    assert not any(r.get("superuser") or r.get("createrole") for r in cluster["managed"]["roles"])
    roles = one(manifests, "ConfigMap", "torghut-roles")["data"]["roles.sql"]
    assert cluster["bootstrap"]["initdb"]["owner"] == "torghut_migrate" in roles


# ---------------------------------------------------------------------- settings


def environment(overlay: str, secrets: Mapping[str, Mapping[str, str]] = SECRETS) -> dict[str, str]:
    """What the daemon's container has in its environment, with these secrets."""
    manifests = rendered(overlay)
    (container,) = daemon(overlay)["containers"]
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        found |= one(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
    for env in container["env"]:
        reference = env["valueFrom"]["secretKeyRef"]
        assert not reference.get("optional"), "a missing secret must keep the pod from starting"
        if reference["key"] in secrets.get(reference["name"], {}):
            found[env["name"]] = secrets[reference["name"]][reference["key"]]
    return found


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`settled(overlay, secrets)`: the settings as the daemon reads them in that pod."""

    def read(overlay: str, secrets: Mapping[str, Mapping[str, str]] = SECRETS) -> Any:
        for name in [n for n in os.environ if n.startswith(("TORGHUT_", "APCA_"))]:
            monkeypatch.delenv(name)
        for name, value in environment(overlay, secrets).items():
            monkeypatch.setenv(name, value)
        if overlay != "demo":
            spec = daemon(overlay)
            (volume,) = (v["configMap"]["name"] for v in spec["volumes"] if "configMap" in v)
            text = one(rendered(overlay), "ConfigMap", volume)["data"]["torghut.toml"]
            (tmp_path / "torghut.toml").write_text(text)
            monkeypatch.setenv("TORGHUT_CONFIG", str(tmp_path / "torghut.toml"))
        return load()

    return read


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_daemon_understands_its_settings(overlay: str, settled: Any) -> None:
    settings = settled(overlay)
    assert settings.database_url is not None
    assert settings.tokens() == {"one", "two"}
    assert settings.trading_mode == ("live" if overlay == "live" else "paper")
    if overlay == "demo":
        assert settings.base_url == "http://simulator:8090"
    elif overlay != "live":
        assert settings.base_url == "https://paper-api.alpaca.markets"


def test_live_trades_on_the_named_account_only(settled: Any) -> None:
    """P10: with all three keys the settings are right, and only for that account."""
    settings = settled("live")
    check_live_keys(settings, "123456789")
    with pytest.raises(ConfigError, match="LIVE_ACCOUNT_NUMBER"):
        check_live_keys(settings, "987654321")


@pytest.mark.parametrize("missing", ["live-trading-enabled", "live-account-number"])
def test_live_without_a_key_does_not_start(missing: str, settled: Any) -> None:
    """P10: exit 78. (Kubernetes does not even start the pod: the reference is not optional.)"""
    keys = {k: v for k, v in SECRETS["torghut-live-keys"].items() if k != missing}
    setting = f"TORGHUT_{missing.upper().replace('-', '_')}"
    with pytest.raises(ConfigError, match=setting):
        settled("live", {**SECRETS, "torghut-live-keys": keys})


def test_live_without_the_mode_is_paper(settled: Any) -> None:
    """The first key: without it the live host is refused, as the paper one is meant."""
    keys = {k: v for k, v in SECRETS["torghut-live-keys"].items() if k != "trading-mode"}
    settings = settled("live", {**SECRETS, "torghut-live-keys": keys})
    assert settings.trading_mode == "paper"
    assert settings.base_url == "https://paper-api.alpaca.markets"


def test_the_live_keys_are_only_in_the_live_overlay() -> None:
    for overlay in OVERLAYS:
        assert ("torghut-live-keys" in _text(overlay)) == (overlay == "live")
        assert "trading-mode: live" not in _text(overlay)
