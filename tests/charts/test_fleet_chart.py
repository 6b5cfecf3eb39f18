"""What the fleet's chart renders: objects that the models accept, and engines with which nothing is wrong."""

import json
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from lorafleet.api.adapter import LoRAAdapterSpec
from lorafleet.api.fleet import SpecialistFleetSpec
from lorafleet.api.sources import Source
from lorafleet.controller.manifests import USER, labels_of
from lorafleet.controller.objects import parse_fleet
from lorafleet.engines.diagnosis import Expectations, diagnose
from lorafleet.engines.facts import EngineFacts, engine_facts
from lorafleet.store.plan import PROGRESS_PORT
from tests.charts.helm import CHARTS, Object, lint, of_kind, one, refusal, render

CHART = "lorafleet-fleet"
BASE: Object = {"baseModel": {"name": "acme/base"}}
OTHERS: Object = {
    **BASE,
    "selector": {"matchLabels": {"app": "vllm"}},
    "capacity": {"maxLoraRank": 64},
    "storage": {"create": False, "claimName": "shared"},
    "port": "http",
}
ENGINES: Object = {**BASE, "engines": {"enabled": True}}
# What the end-to-end suite gives: the environment and the model are folders of the node.
CPU: Object = {
    "baseModel": {"name": "tiny"},
    "apiKey": {"secretName": "vllm"},
    "storage": {"create": False, "claimName": "adapters", "mountPath": "/mnt/adapters"},
    "adapters": {"python": {"versions": [{"name": "1", "source": {"volume": {"path": "incoming/python/1"}}}]}},
    "engines": {
        "enabled": True,
        "replicas": 2,
        "model": "/models/tiny",
        "image": {"repository": "localhost/lorafleet-engine", "tag": "e2e", "pullPolicy": "Never"},
        "command": ["/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server"],
        "maxLoras": 2,
        "maxCpuLoras": 8,
        "extraArgs": ["--dtype", "float32", "--enforce-eager", "--max-model-len", "256"],
        "extraEnv": [{"name": "VLLM_CPU_KVCACHE_SPACE", "value": "1"}, {"name": "HOME", "value": "/tmp"}],
        "extraVolumes": [{"name": "venv", "hostPath": {"path": "/venv", "type": "Directory"}}],
        "extraVolumeMounts": [{"name": "venv", "mountPath": "/venv", "readOnly": True}],
        "resources": {"requests": {"cpu": "500m"}},
        "networkPolicy": {"operatorNamespace": "ops", "from": [{"podSelector": {"matchLabels": {"app": "client"}}}]},
    },
}
# Everything about artifacts.
ARTIFACTS: Object = {
    **ENGINES,
    "baseModel": {"name": "acme/base", "config": {"hidden_size": 64, "max_position_embeddings": 1048576}},
    "artifacts": {"pickle": "Convert", "maxSize": "1Gi"},
    "verification": {
        "policy": "Signature",
        "signature": {
            "certificate": {"authorities": {"name": "trust", "key": "ca.pem"}, "identity": "ml@acme.example"}
        },
    },
    "storage": {"quota": "100Gi", "scrub": "0 3 * * *"},
    "adapters": {
        "python": {
            "versions": [
                {"name": "1", "source": {"huggingFace": {"repo": "acme/x", "revision": "v1", "secretName": "hub"}}},
                {"name": "2", "source": {"objectStore": {"url": "s3://b/x/", "region": "eu-west-1"}}},
                {"name": "3", "source": {"oci": {"reference": "registry:5000/x:1", "plainHttp": True}}},
                {"name": "4", "source": {"http": {"url": "https://h/x", "files": [{"path": "a", "sha256": "0" * 64}]}}},
                {"name": "5", "source": {"volume": {"path": "x", "claimName": "c"}}, "digest": "sha256:" + "0" * 64},
            ]
        }
    },
}
# Everything about rollouts.
ROLLOUTS: Object = {
    **ENGINES,
    "warmUp": 3,
    "rollouts": {"maxConcurrent": 2, "waves": [{"matchLabels": {"wave": "early"}}]},
    "prometheus": {"url": "http://prometheus:9090", "bearerToken": {"secretName": "prometheus"}},
    "adapters": {
        "python": {
            "versions": [{"name": "1", "source": {"volume": {"path": "x"}}}],
            "rollout": {
                "steps": [{"weight": 5, "pause": "10m"}, {"weight": 50, "pause": {}}],
                "analysis": {
                    "interval": "30s",
                    "minRequests": 10,
                    "maxErrorRate": 0.05,
                    "maxLatencyRatio": 1.3,
                    "queries": [{"name": "quality", "query": "vector(1)", "min": 0.5}],
                    "failureLimit": 2,
                },
                "progressDeadline": "1h",
                "onDeadline": "Pause",
                "keepLoaded": 1,
            },
            "probe": {"prompts": [{"prompt": "x", "expect": "y", "differsFromBase": True}], "timeout": "5s"},
        },
        "split": {
            "versions": [{"name": name, "source": {"volume": {"path": name}}} for name in ("a", "b")],
            "traffic": [{"version": "a", "weight": 30}, {"version": "b", "weight": 70}],
        },
    },
}
EVERY_SET = [OTHERS, ENGINES, CPU, ARTIFACTS, ROLLOUTS]


def pod(objects: list[Object], instance: str = "x") -> Object:
    """A running pod of the StatefulSet, as the API server would show it."""
    template = one(objects, "StatefulSet")["spec"]["template"]
    name = one(objects, "StatefulSet")["metadata"]["name"] + "-0"
    container = {"name": "vllm", "ready": True, "restartCount": 0, "containerID": "containerd://1"}
    return {
        "metadata": {**template["metadata"], "name": name, "namespace": "here", "uid": "1"},
        "spec": template["spec"],
        "status": {
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [container],
        },
    }


def fleet(objects: list[Object]) -> SpecialistFleetSpec:
    return SpecialistFleetSpec.model_validate(one(objects, "SpecialistFleet")["spec"])


def vllm(objects: list[Object]) -> Object:
    (found,) = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    return dict(found)


def engine_policy(objects: list[Object]) -> Object:
    (found,) = [one for one in of_kind(objects, "NetworkPolicy") if one["metadata"]["name"].endswith("-engine")]
    return found


def named(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]
    return found


def facts(objects: list[Object]) -> EngineFacts:
    return engine_facts(pod(objects), fleet(objects).engines.port)


@pytest.mark.parametrize("values", EVERY_SET)
def test_lint_is_content(values: Object) -> None:
    assert lint(CHART, values) == ""


@pytest.mark.parametrize("values", [ENGINES, CPU])
def test_operator_finds_nothing_wrong_with_the_engines(values: Object) -> None:
    objects = render(CHART, values)
    spec = fleet(objects)
    found = facts(objects)
    assert found.model
    expectations = Expectations(
        base_names=spec.base_model.names,
        mount_path=spec.storage.mount_path,
        engine_model=found.model,
        expects_api_key=spec.engines.api_key is not None,
    )
    bases = [(name, found.model) for name in found.served_model_names]
    assert diagnose(found, bases=bases, version="0.32.0", expectations=expectations) == ()


def test_selector_of_the_fleet_selects_the_engines() -> None:
    objects = render(CHART, ENGINES)
    selected = fleet(objects).engines.selector.match_labels.items()
    statefulset = one(objects, "StatefulSet")["spec"]
    assert selected <= statefulset["template"]["metadata"]["labels"].items()
    others = [
        statefulset["selector"]["matchLabels"],
        engine_policy(objects)["spec"]["podSelector"]["matchLabels"],
        named(objects, "PodDisruptionBudget", "x-engine")["spec"]["selector"]["matchLabels"],
        *(named(objects, "Service", name)["spec"]["selector"] for name in ("x-engine", "x-engine-pods")),
    ]
    assert all(other.items() == selected for other in others)


def test_engines_are_started_with_the_values() -> None:
    objects = render(CHART, CPU)
    found = vllm(objects)
    assert found["command"] == ["/venv/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert found["args"] == [
        "--model",
        "/models/tiny",
        "--served-model-name",
        "tiny",
        "--port",
        "8000",
        "--enable-lora",
        "--max-loras",
        "2",
        "--max-cpu-loras",
        "8",
        "--max-lora-rank",
        "16",
        "--shutdown-timeout",
        "110",
        "--dtype",
        "float32",
        "--enforce-eager",
        "--max-model-len",
        "256",
    ]
    assert found["image"] == "localhost/lorafleet-engine:e2e"
    assert facts(objects).max_cpu_loras == 8


def test_an_engine_whose_pod_ends_first_gets_no_new_requests_and_then_ends_those_that_run() -> None:
    changed = {**CPU, "engines": {**CPU["engines"], "leaveSeconds": 7, "terminationGracePeriodSeconds": 60}}
    objects = render(CHART, changed)
    found = vllm(objects)
    assert found["lifecycle"] == {"preStop": {"sleep": {"seconds": 7}}}
    assert found["args"][found["args"].index("--shutdown-timeout") + 1] == "48", "5 s are left for vLLM itself"
    at_once = {**CPU, "engines": {**CPU["engines"], "leaveSeconds": 0, "terminationGracePeriodSeconds": 3}}
    found = vllm(render(CHART, at_once))
    assert "lifecycle" not in found
    assert found["args"][found["args"].index("--shutdown-timeout") + 1] == "0"


def test_engines_have_the_environment_that_runtime_loading_needs() -> None:
    env = {entry["name"]: entry.get("value") or entry["valueFrom"] for entry in vllm(render(CHART, CPU))["env"]}
    assert env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "true"
    assert env["VLLM_PLUGINS"] == "lora_filesystem_resolver"
    assert env["VLLM_LORA_RESOLVER_CACHE_DIR"] == "/mnt/adapters"
    assert env["VLLM_API_KEY"] == {"secretKeyRef": {"name": "vllm", "key": "api-key"}}
    assert "VLLM_API_KEY" not in {entry["name"] for entry in vllm(render(CHART, ENGINES))["env"]}


def test_a_variable_of_the_user_takes_the_place_of_ours() -> None:
    """Server-side apply refuses a list with the same name twice."""
    names = [entry["name"] for entry in vllm(render(CHART, CPU))["env"]]
    assert sorted(names) == sorted(set(names))
    assert {"name": "HOME", "value": "/tmp"} in vllm(render(CHART, CPU))["env"]
    assert {"name": "HOME", "value": "/cache"} in vllm(render(CHART, ENGINES))["env"]


@pytest.mark.parametrize("values", [ENGINES, CPU])
def test_engines_see_only_the_serving_folder_and_cannot_write(values: Object) -> None:
    objects = render(CHART, values)
    mounts = [mount for mount in vllm(objects)["volumeMounts"] if mount["name"] == "adapters"]
    path = fleet(objects).storage.mount_path
    assert mounts == [{"name": "adapters", "mountPath": path, "subPath": "serving", "readOnly": True}]


def test_serving_folder_is_made_by_the_user_of_sync_jobs_before_the_engine_mounts_it() -> None:
    spec = one(render(CHART, ENGINES), "StatefulSet")["spec"]["template"]["spec"]
    (init,) = spec["initContainers"]
    assert init["command"] == ["mkdir", "-p", "-m", "0755", "/volume/serving"]
    assert init["volumeMounts"] == [{"name": "adapters", "mountPath": "/volume"}]
    assert (init["securityContext"]["runAsUser"], init["securityContext"]["runAsGroup"]) == (USER, USER)
    assert spec["securityContext"]["fsGroup"] == USER
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "adapters"]
    assert volume["persistentVolumeClaim"]["claimName"] == fleet(render(CHART, ENGINES)).storage.claim_name


def test_pods_may_run_where_pod_security_is_restricted() -> None:
    spec = one(render(CHART, ENGINES), "StatefulSet")["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in (*spec["initContainers"], *spec["containers"]):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_an_upgrade_of_the_chart_alone_restarts_no_engine() -> None:
    template = json.dumps(one(render(CHART, ENGINES), "StatefulSet")["spec"]["template"])
    assert "helm.sh/chart" not in template


def test_model_path_of_the_engines_becomes_an_alias() -> None:
    """The operator compares what engines say of themselves with the base model's names."""
    assert fleet(render(CHART, CPU)).base_model.names == ("tiny", "/models/tiny")
    assert fleet(render(CHART, ENGINES)).base_model.aliases == ()


def test_startup_may_take_long_and_liveness_waits_for_it() -> None:
    found = vllm(render(CHART, ENGINES))
    startup = found["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] == 3600
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert found[probe]["httpGet"] == {"path": "/health", "port": "http"}


def test_only_the_operator_the_router_and_listed_peers_reach_the_engines() -> None:
    policy = engine_policy(render(CHART, CPU))["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
    assert rule["from"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ops"}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "lorafleet"}},
        },
        {"podSelector": {"matchLabels": {"lorafleet.dev/component": "router", "lorafleet.dev/fleet": "x"}}},
        {"podSelector": {"matchLabels": {"app": "client"}}},
    ]


def test_operator_of_the_other_chart_matches_the_policys_labels() -> None:
    policy = engine_policy(render(CHART, ENGINES))["spec"]["ingress"][0]["from"][0]
    operator = one(render("lorafleet"), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= operator.items()


def test_engines_of_others_get_no_objects_of_ours() -> None:
    objects = render(CHART, {**OTHERS, "router": {"enabled": False}})
    assert {item["kind"] for item in objects} == {"SpecialistFleet", "NetworkPolicy"}
    assert [item["metadata"]["name"] for item in of_kind(objects, "NetworkPolicy")] == ["x-sync"]
    spec = fleet(objects)
    assert spec.engines.port == "http"
    assert spec.capacity.max_lora_rank == 64
    assert spec.storage.claim_name == "shared"


def test_claim_can_be_shared_and_stays_when_the_release_goes() -> None:
    claim = one(render(CHART, ENGINES), "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["metadata"]["name"] == "x-adapters"


@pytest.mark.parametrize(("given", "rendered"), [(None, ...), ("", ""), ("nfs", "nfs")])
def test_storage_class_is_the_clusters_default_none_or_named(given: Any, rendered: Any) -> None:
    values = {**ENGINES, "storage": {"storageClassName": given, "volumeName": "v", "keep": False}}
    claim = one(render(CHART, values), "PersistentVolumeClaim")
    assert claim["spec"].get("storageClassName", ...) == rendered
    assert claim["spec"]["volumeName"] == "v"
    assert "annotations" not in claim["metadata"]


def test_adapters_from_values_belong_to_the_fleet() -> None:
    objects = render(CHART, CPU, release="hi-moe")
    adapter = one(objects, "LoRAAdapter")
    spec = LoRAAdapterSpec.model_validate(adapter["spec"])
    assert (adapter["metadata"]["name"], spec.fleet, spec.active) == ("python", "hi-moe", "1")
    assert one(objects, "SpecialistFleet")["metadata"]["name"] == "hi-moe"


def test_what_adapters_may_be_and_must_prove_is_the_fleets_spec() -> None:
    spec = fleet(render(CHART, ARTIFACTS))
    assert spec.base_model.config == {"hidden_size": 64, "max_position_embeddings": 1048576}
    assert isinstance(spec.base_model.config["max_position_embeddings"], int)
    assert (spec.artifacts.pickle, spec.artifacts.max_size) == ("Convert", "1Gi")
    assert spec.verification.signature and spec.verification.signature.config_map_ref.name == "trust"
    assert spec.storage.quota == "100Gi"
    assert spec.storage.scrub and spec.storage.scrub.schedule == "0 3 * * *"


def test_nothing_is_asked_of_adapters_unless_it_is_said() -> None:
    spec = fleet(render(CHART, ENGINES))
    default = SpecialistFleetSpec.model_validate(one(render(CHART, OTHERS), "SpecialistFleet")["spec"])
    for found in (spec, default):
        assert (found.verification.policy, found.verification.signature) == ("None", None)
        assert (found.artifacts.pickle, found.artifacts.max_size) == ("Refuse", "64Gi")
        assert (found.storage.quota, found.storage.scrub) == (None, None)
        assert (found.base_model.config, found.base_model.volume) == (None, None)


def test_how_rollouts_go_is_the_fleets_and_the_adapters_spec() -> None:
    objects = render(CHART, ROLLOUTS)
    spec = fleet(objects)
    assert spec.engines.warm_up == 3
    assert (spec.rollouts.max_concurrent, spec.rollouts.waves[0].match_labels) == (2, {"wave": "early"})
    assert spec.prometheus and spec.prometheus.bearer_token
    assert spec.prometheus.bearer_token.secret_key_ref.key == "token"
    specs = {one["metadata"]["name"]: LoRAAdapterSpec.model_validate(one["spec"]) for one in adapters(objects)}
    rollout = specs["python"].rollout
    assert rollout and rollout.analysis and rollout.analysis.queries[0].min == 0.5
    assert [(step.weight, step.waits_for_a_person) for step in rollout.steps] == [(5, False), (50, True)]
    assert specs["python"].probe.prompts[0].differs_from_base
    assert [(part.version, part.weight) for part in specs["split"].traffic] == [("a", 30), ("b", 70)]
    default = fleet(render(CHART, ENGINES))
    assert (default.rollouts, default.prometheus) == (SpecialistFleetSpec.model_fields["rollouts"].default, None)


def adapters(objects: list[Object]) -> list[Object]:
    return of_kind(objects, "LoRAAdapter")


def known_fields(model: type[BaseModel]) -> Object:
    """The fields of a model by alias, each with those of the models in it."""
    found: Object = {}
    for field in model.model_fields.values():
        inner = [one for one in flat(field.annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
        found[str(field.alias)] = known_fields(inner[0]) if inner else {}
    return found


def flat(annotation: Any) -> list[Any]:
    parts = get_args(annotation)
    return [annotation] if not parts else [one for part in parts for one in flat(part)]


def fields_of(schema: Object) -> Object:
    """The same of a schema."""
    schema = schema.get("items", schema)
    return {name: fields_of(part) for name, part in schema.get("properties", {}).items()}


@pytest.mark.parametrize("field", ["rollout", "traffic", "probe"])
def test_schema_of_rollouts_knows_the_fields_of_the_models(field: str) -> None:
    schema = json.loads((CHARTS / CHART / "values.schema.json").read_text())["properties"]["adapters"]
    known = known_fields(LoRAAdapterSpec)
    assert fields_of(schema["additionalProperties"]["properties"][field]) == known[field]


def test_base_models_folder_can_be_a_claim() -> None:
    values = {**ENGINES, "baseModel": {"name": "acme/base", "volume": {"claimName": "models", "path": "base"}}}
    volume = fleet(render(CHART, values)).base_model.volume
    assert volume and (volume.claim_name, volume.path) == ("models", "base")


def test_every_source_can_be_given_in_values() -> None:
    spec = LoRAAdapterSpec.model_validate(one(render(CHART, ARTIFACTS), "LoRAAdapter")["spec"])
    schemes = {version.source.scheme for version in spec.versions}
    assert schemes == {field.alias for field in Source.model_fields.values()}


def test_schema_of_sources_knows_the_fields_of_the_models() -> None:
    schema = json.loads((CHARTS / CHART / "values.schema.json").read_text())["properties"]["adapters"]
    entry = schema["additionalProperties"]["properties"]["versions"]["items"]["properties"]["source"]["properties"]
    for name, field in Source.model_fields.items():
        (model,) = [one for one in field.annotation.__args__ if one is not type(None)]  # type: ignore[union-attr]
        known = {part.alias for part in model.model_fields.values()}
        assert set(entry[field.alias]["properties"]) == known, name


def test_only_the_operator_asks_sync_pods_how_far_they_are() -> None:
    objects = render(CHART, ENGINES)
    (policy,) = [item for item in of_kind(objects, "NetworkPolicy") if item["metadata"]["name"] == "x-sync"]
    spec = policy["spec"]
    raw = {**one(objects, "SpecialistFleet")}
    raw["metadata"] = {**raw["metadata"], "uid": "u", "resourceVersion": "1"}
    assert spec["podSelector"]["matchLabels"].items() <= labels_of(parse_fleet(raw)).items()
    assert spec["policyTypes"] == ["Ingress"], "they fetch from anywhere"
    (rule,) = spec["ingress"]
    assert rule["ports"] == [{"port": PROGRESS_PORT, "protocol": "TCP"}]
    operator = one(render("lorafleet"), "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert rule["from"][0]["podSelector"]["matchLabels"].items() <= operator.items()


def test_schema_of_adapters_knows_the_fields_of_the_model() -> None:
    schema = json.loads((CHARTS / CHART / "values.schema.json").read_text())["properties"]["adapters"]
    known = {field.alias for field in LoRAAdapterSpec.model_fields.values()}
    assert set(schema["additionalProperties"]["properties"]) == known - {"fleet"}


def test_long_names_stay_within_the_limit_of_labels() -> None:
    objects = render(CHART, {**ENGINES, "fleetName": "f" * 63})
    assert len(one(objects, "StatefulSet")["metadata"]["name"]) <= 52
    assert all(len(service["metadata"]["name"]) <= 63 for service in of_kind(objects, "Service"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"engines": {"enabled": True}}, "baseModel.name is needed"),
        (BASE, "which pods are engines"),
        ({**OTHERS, "engines": {"enabled": True}}, "selector is for engines that somebody else runs"),
        ({**ENGINES, "capacity": {"maxLoras": 1}}, "capacity is for engines that somebody else runs"),
        ({**ENGINES, "engine": {}}, "engine"),
        ({**BASE, "engines": {"enabled": True, "maxLora": 3}}, "maxLora"),
        ({**BASE, "engines": {"enabled": True, "maxLoraRank": 20}}, "maxLoraRank"),
        ({**BASE, "engines": {"enabled": True, "maxLoras": 8, "maxCpuLoras": 4}}, "at least"),
        ({**ENGINES, "port": "http"}, "port must be a number"),
        ({**ENGINES, "storage": {"create": False}}, "storage.claimName is needed"),
        ({**ENGINES, "storage": {"mountPath": "adapters"}}, "mountPath"),
        ({**ENGINES, "drainTime": "30"}, "drainTime"),
        ({**ENGINES, "storage": {"quota": "much"}}, "quota"),
        ({**ENGINES, "verification": {"policy": "Trust"}}, "policy"),
        ({**ENGINES, "artifacts": {"pickle": "Allow"}}, "pickle"),
        (
            {**ENGINES, "baseModel": {"name": "b", "config": {"a": 1}, "volume": {"claimName": "c"}}},
            "two places for one file",
        ),
        ({**ENGINES, "rollouts": {"maxConcurrent": 0}}, "maxConcurrent"),
        ({**ENGINES, "prometheus": {"url": "prometheus:9090"}}, "url"),
        ({**ENGINES, "adapters": {"Python": {"versions": []}}}, "Python"),
        ({**ENGINES, "adapters": {"python": {"version": []}}}, "version"),
        ({**ENGINES, "adapters": {"python": {"versions": [{"name": "1", "source": {}}]}}}, "source"),
    ],
)
def test_wrong_values_are_refused(values: Object, said: str) -> None:
    assert said in refusal(CHART, values)
