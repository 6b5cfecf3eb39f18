"""The router in the fleet's chart: settings that the process accepts, a pod that ends in order, and few rights."""

import json
from typing import Any

import pytest

from lorafleet.api.names import FLEET_LABEL, ROUTER_LABEL, ROUTER_STATS_PORT
from lorafleet.controller.manifests import USER
from lorafleet.router.environment import Environment, EnvoyEnvironment
from lorafleet.router.envoy import BOOTSTRAP
from lorafleet.router.settings import Settings
from tests.charts.helm import Object, lint, of_kind, refusal, render

CHART = "lorafleet-fleet"
PLAIN: Object = {"baseModel": {"name": "acme/base"}, "engines": {"enabled": True}}
FULL: Object = {
    **PLAIN,
    "apiKey": {"secretName": "vllm", "key": "api-key"},
    "router": {
        "replicas": 3,
        "sessionHeader": "",
        "stickyUser": False,
        "engineAffinity": 2,
        "restoreModel": False,
        "listPinned": True,
        "maxBodySize": "20Mi",
        "trustedHops": 1,
        "retries": 5,
        "maxRequests": 5000000,
        "histograms": 1000,
        "timeouts": {"request": "10m", "idle": "1h", "body": "30s", "connect": "500ms"},
        "ejection": {"after": 0, "time": "30s", "percent": 20},
        "apiKeys": {"secretName": "clients"},
        "tls": {"secretName": "router-tls"},
        "service": {
            "type": "LoadBalancer",
            "port": 443,
            "externalTrafficPolicy": "Local",
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "annotations": {"a": "b"},
        },
        "image": {"repository": "acme/lorafleet", "digest": "sha256:" + "0" * 64},
        "envoy": {"concurrency": 4, "extraArgs": ["--component-log-level", "upstream:debug"]},
        "extraEnv": [{"name": "LORAFLEET_ROUTER_COUNT_TOKENS", "value": "false"}],
        "leave": "20s",
        "terminationGracePeriodSeconds": 600,
        "networkPolicy": {
            "clients": [{"podSelector": {"matchLabels": {"app": "gateway"}}}],
            "scrapers": [{"namespaceSelector": {}}],
        },
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "serviceAccount": {"annotations": {"c": "d"}},
        "topologySpreadConstraints": [{"maxSkew": 1}],
        "affinity": {"nodeAffinity": {}},
        "nodeSelector": {"x": "y"},
        "priorityClassName": "high",
        "imagePullSecrets": [{"name": "pull"}],
        "podLabels": {"team": "ml"},
        "podAnnotations": {"note": "x"},
    },
}
BOTH = [PLAIN, FULL]


def named(objects: list[Object], kind: str, name: str = "x-router") -> Object:
    (found,) = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]
    return found


def pod_of(values: Object) -> Object:
    return dict(named(render(CHART, values), "Deployment")["spec"]["template"])


def containers(values: Object) -> dict[str, Object]:
    spec = pod_of(values)["spec"]
    return {one["name"]: one for one in (*spec["initContainers"], *spec["containers"])}


def environ(container: Object) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "from the pod") for entry in container["env"]}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the process reads from the environment that the chart gives it."""

    def reader(values: Object) -> tuple[Environment, EnvoyEnvironment]:
        found = environ(containers(values)["router"])
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        return Environment(), EnvoyEnvironment()

    return reader


@pytest.mark.parametrize("values", BOTH)
def test_lint_is_content(values: Object) -> None:
    assert lint(CHART, values) == ""


def test_default_values_are_the_defaults_of_the_process(read: Any) -> None:
    environment, settings = read(PLAIN)
    assert settings.model_dump() == Settings().model_dump()
    assert environment.fleet == "x"
    assert (environment.engine_key_file, environment.client_keys_directory) == (None, None)


def test_each_value_reaches_the_process(read: Any) -> None:
    environment, settings = read(FULL)
    assert settings.model_dump() == {
        **Settings().model_dump(),
        "session_header": "",
        "sticky_user": False,
        "affinity": 2,
        "restore_model": False,
        "list_pinned": True,
        "max_body_bytes": 20 * 2**20,
        "trusted_hops": 1,
        "retries": 5,
        "max_requests": 5_000_000,
        "histograms": 1000,
        "request_timeout": 600.0,
        "idle_timeout": 3600.0,
        "body_timeout": 30.0,
        "connect_timeout": 0.5,
        "eject_after": 0,
        "eject_time": 30.0,
        "eject_percent": 20,
        "check_keys": True,
        "tls_directory": settings.tls_directory,
        "count_tokens": False,
    }
    assert (environment.leave, environment.grace) == (20.0, 595.0), "it ends before it is killed"


def test_no_variable_is_unknown_to_the_process() -> None:
    known = {*Environment.model_fields, *Settings.model_fields}
    for name in environ(containers(FULL)["router"]):
        if name.startswith("LORAFLEET_ROUTER_"):
            assert name.removeprefix("LORAFLEET_ROUTER_").lower() in known, name


def test_both_containers_of_ours_have_the_same_settings() -> None:
    found = containers(FULL)
    assert found["bootstrap"]["env"] == found["router"]["env"]
    assert (found["bootstrap"]["args"], found["router"]["args"]) == (["router", "--bootstrap"], ["router"])


def test_keys_and_certificates_are_mounted_where_the_settings_say(read: Any) -> None:
    environment, settings = read(FULL)
    found = containers(FULL)
    spec = pod_of(FULL)["spec"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    ours = {mount["name"]: mount["mountPath"] for mount in found["router"]["volumeMounts"]}
    envoys = {mount["name"]: mount["mountPath"] for mount in found["envoy"]["volumeMounts"]}
    assert ours["client-keys"] == str(environment.client_keys_directory)
    assert volumes["client-keys"]["secret"]["secretName"] == "clients"
    assert f"{ours['engine-key']}/key" == str(environment.engine_key_file)
    assert volumes["engine-key"]["secret"]["items"] == [{"key": "api-key", "path": "key"}]
    assert envoys["tls"] == str(settings.tls_directory)
    assert volumes["tls"]["secret"]["secretName"] == "router-tls"
    assert set(envoys) == {"configuration", "tls"}, "Envoy has keys from its configuration, and no token"


def test_secrets_are_in_no_argument_or_variable() -> None:
    text = json.dumps([{**one, "volumeMounts": None} for one in containers(FULL).values()])
    assert "secretKeyRef" not in text and "vllm" not in text


@pytest.mark.parametrize("values", BOTH)
def test_envoy_starts_from_the_folder_that_it_shares_with_the_process(values: Object, read: Any) -> None:
    environment, _ = read(values)
    found = containers(values)
    assert found["envoy"]["args"][:2] == ["--config-path", str(environment.directory / BOOTSTRAP)]
    for name in ("bootstrap", "envoy", "router"):
        (mount,) = [one for one in found[name]["volumeMounts"] if one["name"] == "configuration"]
        assert mount["mountPath"] == str(environment.directory)
        assert mount.get("readOnly", False) is (name == "envoy")
    (volume,) = [one for one in pod_of(values)["spec"]["volumes"] if one["name"] == "configuration"]
    assert volume["emptyDir"]["medium"] == "Memory", "keys are in it"


def test_envoy_is_there_before_the_process_and_ends_after_it() -> None:
    spec = pod_of(PLAIN)["spec"]
    assert [one["name"] for one in spec["initContainers"]] == ["bootstrap", "envoy"]
    assert spec["initContainers"][1]["restartPolicy"] == "Always"
    assert [one["name"] for one in spec["containers"]] == ["router"]
    assert "preStop" not in json.dumps(spec)
    args = spec["initContainers"][1]["args"]
    assert args[args.index("--drain-strategy") + 1] == "immediate"


def test_an_update_takes_no_router_away_before_its_successor_is_ready() -> None:
    spec = named(render(CHART, PLAIN), "Deployment")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["replicas"] == 2
    assert containers(PLAIN)["router"]["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "stats"}


@pytest.mark.parametrize(("values", "scheme"), [(PLAIN, "HTTP"), (FULL, "HTTPS")])
def test_envoy_is_asked_for_its_health_as_clients_ask(values: Object, scheme: str) -> None:
    envoy = containers(values)["envoy"]
    for probe in ("startupProbe", "livenessProbe"):
        assert envoy[probe]["httpGet"] == {"path": "/health", "port": "http", "scheme": scheme}


def test_the_operator_and_engines_know_routers_by_their_labels() -> None:
    labels = pod_of(PLAIN)["metadata"]["labels"]
    assert (labels[ROUTER_LABEL], labels[FLEET_LABEL]) == ("x", "x")
    engines = named(render(CHART, PLAIN), "NetworkPolicy", "x-engine")["spec"]["ingress"][0]["from"][1]
    assert engines["podSelector"]["matchLabels"].items() <= labels.items()
    engine = named(render(CHART, PLAIN), "StatefulSet", "x-engine")["spec"]["selector"]["matchLabels"]
    assert not engine.items() <= labels.items(), "a router is no engine"


def test_ports_are_those_that_the_process_opens(read: Any) -> None:
    environment, settings = read(PLAIN)
    found = containers(PLAIN)
    assert found["envoy"]["ports"] == [{"name": "http", "containerPort": settings.port}]
    assert found["router"]["ports"] == [{"name": "stats", "containerPort": environment.http_port}]
    assert environment.http_port == ROUTER_STATS_PORT


def test_the_process_may_read_what_it_watches_and_nothing_else() -> None:
    objects = render(CHART, FULL)
    assert named(objects, "Role")["rules"] == [
        {
            "apiGroups": ["lorafleet.dev"],
            "resources": ["loraadapters", "specialistfleets"],
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    ]
    binding = named(objects, "RoleBinding")
    assert binding["roleRef"]["name"] == "x-router"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "x-router", "namespace": "here"}]
    spec = pod_of(FULL)["spec"]
    assert spec["serviceAccountName"] == "x-router"
    assert spec["automountServiceAccountToken"] is False
    having = [name for name, one in containers(FULL).items() if "token" in json.dumps(one["volumeMounts"])]
    assert having == ["router"]


def test_pods_may_run_where_pod_security_is_restricted_and_write_to_no_disk() -> None:
    security = pod_of(PLAIN)["spec"]["securityContext"]
    assert security["runAsNonRoot"] is True and security["runAsUser"] == USER
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    for one in containers(PLAIN).values():
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_everyone_may_send_requests_and_only_the_operator_may_ask_for_statistics() -> None:
    clients, statistics = named(render(CHART, PLAIN), "NetworkPolicy")["spec"]["ingress"]
    assert clients == {"ports": [{"port": "http", "protocol": "TCP"}]}
    assert statistics["ports"] == [{"port": "stats", "protocol": "TCP"}]
    operator = named(render("lorafleet"), "Deployment", "x-lorafleet")["spec"]["template"]["metadata"]["labels"]
    (peer,) = statistics["from"]
    assert peer["podSelector"]["matchLabels"].items() <= operator.items()


def test_clients_and_scrapers_may_be_listed() -> None:
    clients, statistics = named(render(CHART, FULL), "NetworkPolicy")["spec"]["ingress"]
    assert clients["from"] == [{"podSelector": {"matchLabels": {"app": "gateway"}}}]
    assert statistics["from"][1:] == [{"namespaceSelector": {}}]


def test_service_sends_to_routers() -> None:
    objects = render(CHART, FULL)
    spec = named(objects, "Service")["spec"]
    assert spec["selector"].items() <= pod_of(FULL)["metadata"]["labels"].items()
    assert spec["ports"] == [{"name": "https", "port": 443, "targetPort": "http"}]
    assert (spec["type"], spec["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    assert named(render(CHART, PLAIN), "Service")["spec"]["ports"][0]["name"] == "http"
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        selector = named(objects, kind)["spec"]["selector"]["matchLabels"]
        assert selector.items() <= pod_of(FULL)["metadata"]["labels"].items()


def test_pods_are_spread_over_nodes_and_zones() -> None:
    spread = pod_of(PLAIN)["spec"]["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]
    assert pod_of(FULL)["spec"]["topologySpreadConstraints"] == [{"maxSkew": 1}]


def test_an_upgrade_of_the_chart_alone_restarts_no_router() -> None:
    assert "helm.sh/chart" not in json.dumps(pod_of(PLAIN))


def test_images_may_be_pinned() -> None:
    found = containers(FULL)
    assert found["router"]["image"] == found["bootstrap"]["image"] == f"acme/lorafleet:0.1.0@sha256:{'0' * 64}"
    assert found["envoy"]["image"].startswith("envoyproxy/envoy:")


def test_a_fleet_may_have_no_router() -> None:
    objects = render(CHART, {**PLAIN, "router": {"enabled": False}})
    assert not [item for item in objects if item["metadata"]["name"] == "x-router"]


def test_long_names_stay_within_the_limits() -> None:
    objects = render(CHART, {**PLAIN, "fleetName": "f" * 63})
    names = [item["metadata"]["name"] for item in objects if item["metadata"]["name"].endswith("-router")]
    assert len(names) >= 6 and all(len(name) <= 52 for name in names)


@pytest.mark.parametrize(
    ("router", "said"),
    [
        ({"replica": 3}, "replica"),
        ({"maxBodySize": "much"}, "maxBodySize"),
        ({"timeouts": {"idle": "60"}}, "idle"),
        ({"terminationGracePeriodSeconds": 5}, "terminationGracePeriodSeconds"),
        ({"sessionHeader": "X-Session"}, "sessionHeader"),
        ({"ejection": {"percent": 100}}, "percent"),
        ({"service": {"type": "ExternalName"}}, "type"),
    ],
)
def test_wrong_values_are_refused(router: Object, said: str) -> None:
    assert said in refusal(CHART, {**PLAIN, "router": router})
