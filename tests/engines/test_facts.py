"""What is read from Pods: command lines in every dress, environments, ports, and odd Pods."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.engines.arguments import parse
from lorafleet.engines.facts import EngineFacts, engine_facts

MODULE = "vllm.entrypoints.openai.api_server"


def pod(**container: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "specialists", "name": "vllm-0", "uid": "u-1"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "vllm", "image": "vllm/vllm-openai", **container}]},
        "status": {
            "podIP": "10.0.0.7",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [
                {"name": "vllm", "ready": True, "containerID": "containerd://abc", "restartCount": 3}
            ],
        },
    }


def facts(*args: str, **container: Any) -> EngineFacts:
    return engine_facts(pod(args=list(args), **container), 8000)


WORDS = ["--enable-lora", "--max-loras", "4", "--max-lora-rank", "64", "--served-model-name", "base", "alias"]


@pytest.mark.parametrize(
    "words",
    [
        ["vllm", "serve", "acme/m", *WORDS],
        ["/opt/venv/bin/vllm", "serve", "acme/m", *WORDS],
        ["serve", "acme/m", *WORDS],
        ["vllm", "serve", "--model", "acme/m", *WORDS],
        ["python3", "-m", MODULE, "--model", "acme/m", *WORDS],
        ["python3", "-m", MODULE, "--model=acme/m", "--enable-lora", "--max-loras=4", "--max-lora-rank=64",
         "--served-model-name=base", "alias"],
        ["--model", "acme/m", *WORDS],
        ["--model", "acme/m", *(word.replace("max-", "max_").replace("enable-", "enable_") for word in WORDS)],
        ["--max-loras", "2", "--model", "acme/m", *WORDS],
        ["sh", "-c", "vllm serve acme/m " + " ".join(WORDS)],
        ["/bin/bash", "-lc", "set -e; cd /x && exec vllm serve 'acme/m' \\\n " + " ".join(WORDS) + " | tee /log"],
        ["bash", "-c", "# start\nexport A=1\nvllm serve acme/m " + " ".join(WORDS) + "\nsleep 1 --max-loras 9"],
        ["tini", "--", "sh", "-c", "python -m " + MODULE + " --model acme/m " + " ".join(WORDS)],
        ["env", "A=1", "vllm", "serve", "acme/m", *WORDS],
        ["vllm", "serve", "acme/m", "--compilation-config", '{"level": 3}', *WORDS, "-O3"],
        ["vllm", "serve", "$(MODEL)", *WORDS],
    ],
)  # fmt: skip
def test_a_command_line_is_read_in_every_dress(words: list[str]) -> None:
    for split in range(len(words) + 1):
        container = {"command": words[:split], "args": words[split:], "env": [{"name": "MODEL", "value": "acme/m"}]}
        found = engine_facts(pod(**container), 8000)
        assert found.model == "acme/m"
        assert found.enable_lora is True
        assert (found.max_loras, found.max_lora_rank) == (4, 64)
        assert found.served_model_names == ("base", "alias")


def test_what_is_not_given_is_vllms_default_and_said_to_be_one() -> None:
    found = facts("--model", "m", "--max-loras", "4")
    assert (found.max_loras, found.max_cpu_loras, found.max_lora_rank) == (4, 4, 16)
    assert (found.api_server_count, found.data_parallel_size) == (1, 1)
    assert (found.tensor_parallel_size, found.dtype) == (1, None)
    assert found.defaults == {
        "max_cpu_loras",
        "max_lora_rank",
        "api_server_count",
        "data_parallel_size",
        "tensor_parallel_size",
    }
    assert found.enable_lora is False


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--data-parallel-size", "4"], 4),
        (["-dp", "4"], 4),
        (["--data-parallel-size", "4", "--api-server-count", "1"], 1),
        (["--data-parallel-size=4", "--data-parallel-size-local=2"], 2),
        (["--data-parallel-size", "4", "--data-parallel-external-lb"], 1),
        (["--api-server-count=2"], 2),
        (["--api-server-count", "two"], 1),
    ],
)
def test_api_servers_follow_data_parallel_ranks_unless_said_otherwise(words: list[str], count: int) -> None:
    assert facts("--model", "m", *words).api_server_count == count


@pytest.mark.parametrize(
    "words", [["-tp", "2"], ["-tp=2"], ["--tensor-parallel-size=2"], ["--tensor_parallel_size", "2"]]
)
def test_tensor_parallel_size_is_read_by_each_of_its_names(words: list[str]) -> None:
    assert facts("--model", "m", *words).tensor_parallel_size == 2


@pytest.mark.parametrize(("words", "dtype"), [(["--dtype", "float32"], "float32"), (["--dtype", "auto"], None)])
def test_a_dtype_that_vllm_chooses_is_not_known(words: list[str], dtype: str | None) -> None:
    assert facts("--model", "m", *words).dtype == dtype


@pytest.mark.parametrize(
    ("words", "on"),
    [
        (["--model", "m"], False),
        (["--model", "m", "--enable-lora"], True),
        (["--model", "m", "--enable-lora=false"], False),
        (["--model", "m", "--no-enable-lora"], False),
        (["--model", "m", "--config", "/c.yaml"], None),
        ([], None),
        (["start.sh"], None),
    ],
)
def test_lora_is_off_only_where_a_whole_command_line_was_read(words: list[str], on: bool | None) -> None:
    assert facts(*words).enable_lora is on


UPDATING = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"


@pytest.mark.parametrize(
    ("container", "on"),
    [
        ({"env": [{"name": UPDATING, "value": "True"}]}, True),
        ({"env": [{"name": UPDATING, "value": "1"}]}, True),
        ({"env": [{"name": UPDATING, "value": "yes"}]}, False),
        ({"env": [{"name": UPDATING}]}, False),
        ({"env": [{"name": UPDATING, "value": "1"}, {"name": UPDATING, "value": "0"}]}, False),
        ({}, False),
        ({"env": [{"name": UPDATING, "valueFrom": {"configMapKeyRef": {}}}]}, None),
        ({"envFrom": [{"configMapRef": {"name": "vllm"}}]}, None),
        ({"command": ["sh", "-c", f"{UPDATING}=1 vllm serve m"]}, None),
    ],
)
def test_runtime_updating_is_unknown_where_the_pod_does_not_show_it(container: dict[str, Any], on: bool | None) -> None:
    assert engine_facts(pod(**container), 8000).runtime_updating is on


def test_the_resolver_is_read_from_the_environment() -> None:
    env = [
        {"name": "VLLM_PLUGINS", "value": "other, lora_filesystem_resolver"},
        {"name": "VLLM_LORA_RESOLVER_CACHE_DIR", "value": "/adapters"},
    ]
    found = facts(env=env)
    assert found.plugins == ("other", "lora_filesystem_resolver")
    assert found.resolver_dir == "/adapters"
    assert facts().plugins is None


@pytest.mark.parametrize(
    "container",
    [
        {"args": ["--model", "m", "--api-key", "s3cret"]},
        {"args": ["--model", "m", "--api-key=s3cret", "other"]},
        {"args": ["vllm", "serve", "m", "--api-key", "$(KEY)"], "env": [{"name": "KEY", "value": "s3cret"}]},
        {"env": [{"name": "VLLM_API_KEY", "value": "s3cret"}]},
        {"env": [{"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "s3cret"}}}]},
    ],
)
def test_of_an_api_key_only_its_presence_is_kept(container: dict[str, Any]) -> None:
    found = engine_facts(pod(**container), 8000)
    assert found.has_api_key
    assert "s3cret" not in repr(found)


def test_an_empty_key_is_none() -> None:
    assert not facts(env=[{"name": "VLLM_API_KEY", "value": ""}]).has_api_key


def test_the_place_and_the_instance_are_read() -> None:
    found = facts()
    assert (found.namespace, found.name, found.pod_ip, found.port, found.node) == (
        "specialists", "vllm-0", "10.0.0.7", 8000, "node-1",
    )  # fmt: skip
    assert found.instance == ("u-1", "containerd://abc", 3)
    assert found.ready
    assert not found.terminating


def test_ready_needs_the_pod_and_the_container() -> None:
    for path in (("conditions", "status", "False"), ("containerStatuses", "ready", False)):
        raw = pod()
        raw["status"][path[0]][0][path[1]] = path[2]
        assert not engine_facts(raw, 8000).ready


def test_a_pod_with_a_deletion_timestamp_is_terminating() -> None:
    raw = pod()
    raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert engine_facts(raw, 8000).terminating


@pytest.mark.parametrize(
    ("containers", "port", "name", "number"),
    [
        ([{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8000}]}], 8000, "b", 8000),
        ([{"name": "a"}, {"name": "b", "ports": [{"containerPort": 9, "name": "http"}]}], "http", "b", 9),
        ([{"name": "a"}, {"name": "b", "image": "acme/vllm:1"}], 8000, "b", 8000),
        ([{"name": "a"}, {"name": "b", "command": ["vllm", "serve", "m"]}], "http", "b", None),
        ([{"name": "a"}, {"name": "b"}], 8000, "a", 8000),
        ([{"name": "a"}], "8000", "a", 8000),
        ([], 8000, "", 8000),
    ],
)
def test_the_engine_is_the_container_with_the_port_else_the_one_that_speaks_of_vllm(
    containers: list[dict[str, Any]], port: int | str, name: str, number: int | None
) -> None:
    raw = pod()
    raw["spec"]["containers"] = containers
    found = engine_facts(raw, port)
    assert (found.container, found.port) == (name, number)


KEYS = st.sampled_from(
    ["metadata", "spec", "status", "containers", "name", "ports", "containerPort", "command", "args", "env", "value",
     "valueFrom", "envFrom", "podIP", "conditions", "type", "containerStatuses", "ready", "restartCount", "uid"]
)  # fmt: skip
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
SHELL = (
    "vllm serve sh -c bash env exec -- --model m --model= --max-loras --max-loras=4 -dp - && | ' \" \\ $(A) $A ${A} -m"
)
WORD = st.sampled_from([*SHELL.split(), MODULE, "sh -c 'vllm serve x'", "\n", ""]) | st.text(max_size=12)


@given(st.dictionaries(KEYS, ODD), st.integers(1, 65535) | st.sampled_from(["http", "8000", ""]))
def test_no_pod_is_too_odd(raw: dict[str, Any], port: int | str) -> None:
    found = engine_facts(raw, port)
    hash(found)
    assert found.max_loras >= 1
    assert found.max_cpu_loras >= 1


@given(st.lists(WORD, max_size=10), st.lists(WORD, max_size=10))
def test_no_command_line_is_too_odd(command: list[str], args: list[str]) -> None:
    found = engine_facts(pod(command=command, args=args, env=[{"name": "A", "value": "--max-loras=$(A)"}]), 8000)
    assert found.max_loras >= 1


@given(st.lists(WORD, max_size=12))
def test_parsing_is_the_same_every_time(words: list[str]) -> None:
    assert parse(words, {"A": "x"}) == parse(words, {"A": "x"})
