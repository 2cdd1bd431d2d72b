"""deploy/helm: rendered by Helm itself, and what Kubernetes and the product understand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml
from helm_python import HelmError
from helm_python.chart import Chart, lint

from postroom import Settings
from tests.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "postroom"
# The oldest that the chart takes, and the newest whose schemas are known.
KUBERNETES = ("1.27", "1.37")
PARTS = {
    "relay": ["worker", "-Q", "relay", "--loglevel=INFO"],
    "consumer": ["worker", "-Q", "consumer", "--loglevel=INFO"],
    "worker": ["worker", "--loglevel=INFO"],
    "flower": ["flower"],
}
KEDA = {"consumer": {"keda": {"enabled": True}}}


@pytest.fixture(scope="module")
def chart() -> Iterator[Chart]:
    """Yield the chart."""
    with Chart.load(CHART) as loaded:
        yield loaded


def rendered(chart: Chart, values: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return all objects of a release called `shop`."""
    files = chart.render(values=values or {}, name="shop", namespace="shop")
    texts = (text for name, text in files.items() if name.endswith(".yaml"))
    return [each for text in texts for each in yaml.safe_load_all(text) if each]


def of_kind(chart: Chart, kind: str, values: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the objects of a kind by name, without the release's."""
    return {
        each["metadata"]["name"].removeprefix("shop-"): each
        for each in rendered(chart, values)
        if each["kind"] == kind
    }


def mounted(folder: Path, path: str) -> Path:
    """Make what a Secret would have at a path."""
    file = folder / Path(path).name
    if file.name == "ca.pem":
        return Authority(folder).file
    addresses = {"mongodb-uri": "mongodb://h/", "redis-url": "redis://h"}
    file.write_text(addresses.get(file.name, "secret"))
    return file


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize(
    "values",
    [
        {},
        KEDA,
        {"worker": {"enabled": False}, "flower": {"enabled": False}},
        {"consumer": {"enabled": False}, "networkPolicy": {"enabled": False}},
        {
            "image": {"digest": f"sha256:{'a' * 64}"},
            "imagePullSecrets": [{"name": "registry"}],
            "certificates": {"secret": "tls", "configMap": ""},
            "priorityClassName": "high",
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "payments", "operator": "Exists"}],
            "podAnnotations": {"a": "b"},
            "relay": {"replicas": 4, "secret": "relay"},
        },
    ],
    ids=["as it is", "keda", "few parts", "open network", "everything"],
)
def test_kubernetes_understands_it(chart: Chart, values: dict[str, Any], version: str) -> None:
    """Every object fits the schema of its kind, with no field that Kubernetes would ignore."""
    for each in rendered(chart, values):
        if not each["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(each, version, strict=True)


def test_helm_finds_nothing_wrong() -> None:
    """`helm lint --strict` has no warning."""
    report = lint(CHART, strict=True)
    assert report["errors"] == []
    assert [each for each in report["messages"] if each["severity"] > 1] == []


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"relay": {"replicas": 1}}, "replicas"),
        ({"relay": {"replicas": 0}}, "replicas"),
        ({"relay": {"enabled": False}}, "relay"),
        ({"settings": {"POSTROOM_MONGODB_URI": "mongodb://u:p@h"}}, "POSTROOM_MONGODB_URI"),
        ({"settings": {"POSTROOM_FLOWER_PASSWORD": "secret"}}, "POSTROOM_FLOWER_PASSWORD"),
        ({"settings": {"OTHER": "x"}}, "OTHER"),
        ({"secretFiles": {"POSTROOM_REDIS_URL": "redis-url"}}, "POSTROOM_REDIS_URL"),
        ({"flower": {"secretFiles": {"POSTROOM_FLOWER_PASSWORD_FILE": None}}}, "flower"),
        ({"image": {"digest": "latest"}}, "digest"),
    ],
)
def test_wrong_values_are_refused(chart: Chart, values: dict[str, Any], named: str) -> None:
    """A relay that nobody stands by for, a secret in clear, an open Flower: named, not rendered."""
    with pytest.raises(HelmError, match=named):
        rendered(chart, values)


def test_the_commands_and_variables_are_the_products(
    chart: Chart, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each part runs its literal command, and its variables are settings with valid values."""
    settings = of_kind(chart, "ConfigMap")["settings"]["data"]
    known = {f"POSTROOM_{field.upper()}" for field in Settings.model_fields}
    deployments = of_kind(chart, "Deployment")
    assert deployments.keys() == PARTS.keys()
    for part, deployment in deployments.items():
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        assert container["command"] == ["celery", "-A", "tasks", *PARTS[part]]
        own = {each["name"]: each["value"] for each in container["env"]}
        for variable, value in (settings | own).items():
            if not variable.startswith("POSTROOM_"):
                continue
            assert {variable, variable.removesuffix("_FILE")} & known, variable
            if variable.endswith("_FILE"):
                value = str(mounted(tmp_path, value))  # noqa: PLW2901
            monkeypatch.setenv(variable, value)
    found = Settings()
    assert found.delivery == "exactly_once"
    assert found.flower_password is not None


def test_every_pod_is_restricted(chart: Chart) -> None:
    """Nobody is root, nothing is written but in /tmp, and Kubernetes' own variables stay out."""
    for part, deployment in of_kind(chart, "Deployment", KEDA).items():
        pod = deployment["spec"]["template"]["spec"]
        assert pod["enableServiceLinks"] is False
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert "cpu" not in container["resources"]["limits"], f"{part} would be throttled"
        assert len(pod["topologySpreadConstraints"]) == 2
        assert {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}} in pod["volumes"]


def test_probes_ask_the_worker_itself(chart: Chart) -> None:
    """Each worker's own /livez and /readyz; nothing that an outage of Redis would make fail."""
    for part, deployment in of_kind(chart, "Deployment").items():
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        live, ready = (
            container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")
        )
        expected = ("/healthcheck",) * 2 if part == "flower" else ("/livez", "/readyz")
        assert (live, ready) == expected
        port = {e["name"]: e["value"] for e in container["env"]}.get("POSTROOM_METRICS_PORT")
        assert container["ports"][0]["containerPort"] == (5555 if port is None else int(port))


def test_nothing_has_a_gap_while_it_is_replaced(chart: Chart) -> None:
    """A new worker is ready before an old one ends, and one at a time may be evicted."""
    budgets = of_kind(chart, "PodDisruptionBudget")
    assert budgets.keys() == PARTS.keys() - {"flower"}
    for part, deployment in of_kind(chart, "Deployment").items():
        spec = deployment["spec"]
        if part == "flower":
            assert spec["strategy"]["type"] == "Recreate"
            continue
        assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
        assert budgets[part]["spec"]["maxUnavailable"] == 1
        assert budgets[part]["spec"]["selector"] == spec["selector"]
        assert spec["replicas"] >= 2


def test_keda_scales_consumers_by_what_waits(chart: Chart) -> None:
    """The subscription's backlog decides; the Deployment names no number beside it."""
    deployments = of_kind(chart, "Deployment", KEDA)
    assert "replicas" not in deployments["consumer"]["spec"]
    assert deployments["relay"]["spec"]["replicas"] == 2
    (scaled,) = of_kind(chart, "ScaledObject", KEDA).values()
    assert scaled["spec"]["scaleTargetRef"]["name"] == "shop-consumer"
    assert scaled["spec"]["minReplicaCount"] >= 1
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["type"] == "pulsar"
    assert trigger["metadata"] == {
        "adminURL": "https://pulsar-proxy.pulsar:8443",
        "topic": "persistent://public/default/events",
        "isPartitionedTopic": "false",
        "subscription": "aid-kit",
        "msgBacklogThreshold": "500",
        "authModes": "bearer",
    }
    (authentication,) = of_kind(chart, "TriggerAuthentication", KEDA).values()
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]


def test_secrets_are_files_of_the_part_that_needs_them(chart: Chart) -> None:
    """Flower's password is mounted into Flower alone, and no variable holds a secret."""
    for part, deployment in of_kind(chart, "Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        (mounted,) = (v["secret"] for v in pod["volumes"] if v["name"] == "secrets")
        keys = {item["key"] for item in mounted["items"]}
        assert ("flower-password" in keys) == (part == "flower")
        assert not any("valueFrom" in each for each in pod["containers"][0]["env"])


def test_network_policies_name_every_part(chart: Chart) -> None:
    """Each part has one that lets metrics in, and services, DNS and nothing else out."""
    policies = of_kind(chart, "NetworkPolicy")
    assert policies.keys() == PARTS.keys()
    deployments = of_kind(chart, "Deployment")
    for part, policy in policies.items():
        spec = policy["spec"]
        assert spec["podSelector"] == deployments[part]["spec"]["selector"]
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert spec["ingress"][0]["from"], "an empty list would let everyone in"
        ports = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
        assert {53, 27017, 6651, 8443, 6379} <= ports


def test_the_chart_has_the_packages_version(chart: Chart) -> None:
    """Chart, application and package are one release."""
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'version = "{chart.version}"' in project
    assert chart.metadata["appVersion"] == chart.version
