"""What the operator's chart renders: no more permissions than the code uses, and settings that the code knows."""

import re
from typing import Any

import pytest
import yaml

from lorafleet.api.names import COMPONENT_LABEL, ROUTER_LABEL, ROUTER_STATS_PORT
from lorafleet.controller.jobs import COMPONENT
from lorafleet.controller.settings import Settings
from lorafleet.store.plan import PROGRESS_PORT
from tests.charts.helm import CHARTS, REPOSITORY, Object, lint, of_kind, one, refusal, render

CHART = "lorafleet"
NAMESPACED: Object = {"watchNamespaces": ["a", "b"]}
FULL: Object = {
    "image": {"repository": "localhost/lorafleet", "tag": "e2e", "digest": "sha256:" + "0" * 64},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"restrictEgress": True, "scrapers": [{"namespaceSelector": {}}], "apiServerPorts": [6443]},
    "rbac": {"secretNames": ["vllm"]},
    "crds": {"annotations": {"team": "ml"}},
    "podLabels": {"team": "ml"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy"}],
}
EVERY_SET = [{}, NAMESPACED, FULL, {"crds": {"enabled": False}, "rbac": {"aggregate": False}}]

# Every call that the operator makes (controller/kube.py and its callers; kopf lists and watches the two kinds).
NEEDED = {
    ("lorafleet.dev", "loraadapters"): {"list", "watch", "patch"},
    ("lorafleet.dev", "specialistfleets"): {"list", "watch", "patch"},
    ("lorafleet.dev", "loraadapters/status"): {"patch"},
    ("lorafleet.dev", "specialistfleets/status"): {"patch"},
    ("", "pods"): {"list", "watch"},
    ("", "secrets"): {"get"},
    ("batch", "jobs"): {"list", "watch", "create", "delete"},
    # Server-side apply of what is not there yet is a create as well.
    ("batch", "cronjobs"): {"create", "patch", "delete"},
    ("events.k8s.io", "events"): {"create"},
}


def granted(role: Object) -> dict[tuple[str, str], set[str]]:
    found: dict[tuple[str, str], set[str]] = {}
    for rule in role["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def container(objects: list[Object]) -> Object:
    found: Object = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("values", EVERY_SET)
def test_lint_is_content(values: Object) -> None:
    assert lint(CHART, values) == ""


@pytest.mark.parametrize("values", EVERY_SET)
def test_no_role_has_a_wildcard(values: Object) -> None:
    for role in of_kind(render(CHART, values), "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]], role["metadata"]["name"]


@pytest.mark.parametrize("values", EVERY_SET)
def test_secrets_are_never_listed_or_watched(values: Object) -> None:
    for role in of_kind(render(CHART, values), "Role", "ClusterRole"):
        assert granted(role).get(("", "secrets"), {"get"}) == {"get"}


def test_cluster_role_grants_what_the_code_calls_and_no_more() -> None:
    role = next(item for item in of_kind(render(CHART), "ClusterRole") if item["metadata"]["name"] == "x-lorafleet")
    assert granted(role) == NEEDED


def test_watched_namespaces_get_a_role_each_and_the_operator_no_cluster_role() -> None:
    objects = render(CHART, NAMESPACED)
    roles = [item for item in of_kind(objects, "Role") if item["metadata"]["name"] == "x-lorafleet"]
    assert [(role["metadata"]["namespace"], granted(role)) for role in roles] == [("a", NEEDED), ("b", NEEDED)]
    assert of_kind(objects, "ClusterRoleBinding") == []
    bindings = [item for item in of_kind(objects, "RoleBinding") if item["metadata"]["namespace"] in ("a", "b")]
    for binding in bindings:
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "x-lorafleet", "namespace": "here"}]
        assert binding["roleRef"]["kind"] == "Role"
    assert {"name": "LORAFLEET_WATCH_NAMESPACES", "value": "a,b"} in container(objects)["env"]


def test_lease_role_is_in_the_own_namespace_and_about_one_lease() -> None:
    objects = render(CHART, NAMESPACED)
    role = next(item for item in of_kind(objects, "Role") if item["metadata"]["name"] == "x-lorafleet-lease")
    assert role["metadata"]["namespace"] == "here"
    create, change = role["rules"]
    assert (create["verbs"], create["resources"]) == (["create"], ["leases"])
    assert (change["verbs"], change["resourceNames"]) == (["get", "update"], ["x-lorafleet"])
    assert {"name": "LORAFLEET_LEASE_NAME", "value": "x-lorafleet"} in container(objects)["env"]


def test_secret_names_limit_which_secrets_may_be_read() -> None:
    role = next(r for r in of_kind(render(CHART, FULL), "ClusterRole") if r["metadata"]["name"] == "x-lorafleet")
    rule = next(rule for rule in role["rules"] if rule["resources"] == ["secrets"])
    assert rule["resourceNames"] == ["vllm"]


def test_users_may_not_write_a_status() -> None:
    for role in of_kind(render(CHART), "ClusterRole"):
        if role["metadata"]["name"] != "x-lorafleet":
            assert not [resource for _, resource in granted(role) if "/" in resource]


def test_every_variable_is_a_setting_and_every_setting_has_a_value() -> None:
    known = {f"LORAFLEET_{name.upper()}" for name in Settings.model_fields}
    given = {entry["name"] for entry in container(render(CHART))["env"] if entry["name"].startswith("LORAFLEET_")}
    assert given <= known
    # The rest follow from the pod: its namespace, its name, and all of its addresses.
    assert known - given == {"LORAFLEET_NAMESPACE", "LORAFLEET_IDENTITY", "LORAFLEET_HTTP_HOST"}


def test_default_values_are_the_defaults_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    env = {entry["name"]: entry.get("value") for entry in container(render(CHART))["env"]}
    for name in list(env):
        monkeypatch.delenv(name, raising=False)
    code = Settings(namespace="n", identity="i")
    for name, value in env.items():
        if name.startswith("LORAFLEET_") and value is not None:
            monkeypatch.setenv(name, value)
    assert Settings(namespace="n", identity="i", lease_name=code.lease_name, sync_image=code.sync_image) == code


def test_sync_image_is_the_operators_unless_it_is_given() -> None:
    mine = container(render(CHART, FULL))
    assert {"name": "LORAFLEET_SYNC_IMAGE", "value": mine["image"]} in mine["env"]
    assert mine["image"] == "localhost/lorafleet:e2e@sha256:" + "0" * 64
    other = container(render(CHART, {"sync": {"image": "other:1", "pullPolicy": "Never"}}))["env"]
    assert {"name": "LORAFLEET_SYNC_IMAGE", "value": "other:1"} in other
    assert {"name": "LORAFLEET_SYNC_PULL_POLICY", "value": "Never"} in other


def test_pods_may_run_where_pod_security_is_restricted() -> None:
    spec = one(render(CHART), "Deployment")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (only,) = spec["containers"]
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [volume for volume in spec["volumes"] if "hostPath" in volume] == []


def test_probes_ask_the_operators_own_endpoints() -> None:
    found = container(render(CHART))
    assert found["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert found["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert found["ports"] == [{"name": "http", "containerPort": 8080}]
    assert found["args"] == ["operator"]


def test_crds_are_those_of_the_models() -> None:
    rendered = {item["metadata"]["name"]: item for item in of_kind(render(CHART), "CustomResourceDefinition")}
    for file in (REPOSITORY / "crds").glob("*.yaml"):
        crd = yaml.safe_load(file.read_text())
        assert rendered.pop(crd["metadata"]["name"])["spec"] == crd["spec"]
        copy = CHARTS / CHART / "files" / "crds" / file.name
        assert copy.exists() and copy.read_text() == file.read_text(), "run `make generate`"
    assert rendered == {}


def test_numbers_of_the_crds_stay_numbers() -> None:
    """Helm reads YAML's integers as floats, and large ones come out as 2.147e+09."""
    from tests.charts.helm import _render

    assert re.search(r":\s*-?\d+(\.\d+)?e\+?\d+\s*$", _render(CHART, "x", "here", "{}"), re.MULTILINE) is None


@pytest.mark.parametrize(
    ("crds", "annotations"),
    [
        ({}, {"helm.sh/resource-policy": "keep"}),
        ({"keep": False}, None),
        ({"annotations": {"a": "b"}}, {"a": "b", "helm.sh/resource-policy": "keep"}),
    ],
)
def test_crds_are_kept_when_the_release_goes_unless_told_otherwise(crds: Object, annotations: Any) -> None:
    for crd in of_kind(render(CHART, {"crds": crds}), "CustomResourceDefinition"):
        assert crd["metadata"].get("annotations") == annotations


def test_crds_can_be_left_out() -> None:
    assert of_kind(render(CHART, {"crds": {"enabled": False}}), "CustomResourceDefinition") == []


def test_network_policy_opens_the_http_port_only() -> None:
    policy = one(render(CHART), "NetworkPolicy")["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]
    limited = one(render(CHART, FULL), "NetworkPolicy")["spec"]
    assert limited["ingress"][0]["from"] == [{"namespaceSelector": {}}]
    ports = [[port["port"] for port in rule["ports"]] for rule in limited["egress"]]
    assert ports == [[53, 53], [6443], [8000], [PROGRESS_PORT], [ROUTER_STATS_PORT], [9090]]
    (sync,), (routers,) = limited["egress"][3]["to"], limited["egress"][4]["to"]
    assert sync["podSelector"]["matchLabels"] == {COMPONENT_LABEL: COMPONENT}
    assert routers["podSelector"]["matchExpressions"] == [{"key": ROUTER_LABEL, "operator": "Exists"}]


def test_service_monitor_is_there_only_when_asked_for() -> None:
    assert of_kind(render(CHART), "ServiceMonitor") == []
    monitor = one(render(CHART, FULL), "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    service = one(render(CHART, FULL), "Service")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert wanted <= service["metadata"]["labels"].items()


def test_everything_selects_the_same_pods() -> None:
    objects = render(CHART)
    deployment = one(objects, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"]["matchLabels"],
        one(objects, "Service")["spec"]["selector"],
        one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 3}, "replicas"),
        ({"image": {"name": "x"}}, "name"),
        ({"watchNamespaces": "a"}, "array"),
        ({"watchNamespaces": ["A"]}, "pattern"),
        ({"logLevel": "loud"}, "logLevel"),
        ({"sync": {"jobsPerFleet": 0}}, "jobsPerFleet"),
        ({"crds": {"keep": "yes"}}, "keep"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name is needed"),
    ],
)
def test_wrong_values_are_refused(values: Object, said: str) -> None:
    assert said in refusal(CHART, values)
