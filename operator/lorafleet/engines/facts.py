"""What a Pod says about the vLLM server in it: where it is, whether it is ready, and how it was started.

Read from the Pod's JSON alone, before anyone talks to the engine. Pods are written by anyone: this never raises on an
odd one, it leaves out what it cannot tell (None is "unknown", never "no"). No value of a key or secret is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorafleet.engines.arguments import Arguments, parse

DEFAULT_MAX_LORAS = 1
DEFAULT_MAX_LORA_RANK = 16
UPDATING = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
PLUGINS = "VLLM_PLUGINS"
RESOLVER_DIRECTORY = "VLLM_LORA_RESOLVER_CACHE_DIR"
RESOLVER_PLUGIN = "lora_filesystem_resolver"


@dataclass(frozen=True)
class EngineFacts:
    """One engine container of one Pod.

    ``instance`` is what a restart changes: the registry of loaded adapters is in the container's memory.
    ``started``: the container runs and its startup probe, if it has one, has passed: it may have loaded adapters.
    ``dtype`` is None when vLLM chooses it (``auto``).
    ``defaults`` names the fields that hold vLLM's default because the flag is not on the command line.
    ``enable_lora`` is None when no vLLM command line was recognised, or when a configuration file holds the rest of it.
    ``plugins`` is None when VLLM_PLUGINS is unset, which loads all plugins; ``unknown`` names the environment variables
    that come from elsewhere (a Secret, a ConfigMap, a shell script) and are not read. An image may set variables
    that no Pod shows, so "not set" is a strong hint and no proof.
    """

    namespace: str
    name: str
    uid: str
    container: str
    container_id: str
    restart_count: int
    pod_ip: str | None
    port: int | None
    ready: bool
    started: bool
    terminating: bool
    node: str | None
    enable_lora: bool | None
    max_loras: int
    max_cpu_loras: int
    max_lora_rank: int
    model: str | None
    served_model_names: tuple[str, ...]
    api_server_count: int
    data_parallel_size: int
    tensor_parallel_size: int
    dtype: str | None
    runtime_updating: bool | None
    plugins: tuple[str, ...] | None
    resolver_dir: str | None
    has_api_key: bool
    defaults: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()

    @property
    def instance(self) -> tuple[str, str, int]:
        """What identifies this start of the container: pod UID, container id, restart count."""
        return self.uid, self.container_id, self.restart_count


def instance_text(facts: EngineFacts) -> str:
    """An engine's start as text, as the fleet's status shows it and routers compare it."""
    return f"{facts.uid}/{facts.container_id}/{facts.restart_count}"


def engine_facts(pod: Mapping[str, Any], port: int | str) -> EngineFacts:
    """The facts of a Pod as the Kubernetes API shows it. ``port`` is the number or name of the engine's container port.

    The engine is the container that declares the port; without one, the first whose image or command speaks of vLLM;
    else the first. A port given by number is taken as it is, because declaring it is optional in Kubernetes.
    """
    metadata, spec, status = _map(pod.get("metadata")), _map(pod.get("spec")), _map(pod.get("status"))
    containers = _maps(spec.get("containers"))
    container = _engine(containers, port)
    name = _text(container.get("name"))
    state = next((one for one in _maps(status.get("containerStatuses")) if one.get("name") == name), {})
    words = [*_texts(container.get("command")), *_texts(container.get("args"))]
    env, unknown = _environment(container, words)
    arguments = parse(words, env)
    model = arguments.text("model") or arguments.positional
    values, defaults = _limits(arguments)
    plugins = env.get(PLUGINS)
    return EngineFacts(
        namespace=_text(metadata.get("namespace")),
        name=_text(metadata.get("name")),
        uid=_text(metadata.get("uid")),
        container=name,
        container_id=_text(state.get("containerID")),
        restart_count=_number(state.get("restartCount")) or 0,
        pod_ip=_text(status.get("podIP")) or None,
        port=_port(container, port),
        ready=state.get("ready") is True and _pod_ready(status),
        started=state.get("ready") is True or state.get("started") is True,
        terminating=metadata.get("deletionTimestamp") is not None,
        node=_text(spec.get("nodeName")) or None,
        enable_lora=None if model is None or "config" in arguments.flags else arguments.switch("enable-lora") is True,
        model=None if model is None or "$" in model else model,
        dtype=None if arguments.text("dtype") in (None, "", "auto") else arguments.text("dtype"),
        served_model_names=_split(arguments.flags.get("served-model-name", ())),
        runtime_updating=None if UPDATING in unknown else _on(env.get(UPDATING)),
        plugins=None if plugins is None else tuple(part.strip() for part in plugins.split(",") if part.strip()),
        resolver_dir=env.get(RESOLVER_DIRECTORY) or None,
        has_api_key="api-key" in arguments.flags or env.get("VLLM_API_KEY", "") != "",
        defaults=defaults,
        unknown=unknown,
        **values,
    )


def _limits(arguments: Arguments) -> tuple[dict[str, int], frozenset[str]]:
    """The numbers that vLLM was started with, and which of them are its defaults (vLLM 0.32.0, `config/lora.py`)."""
    defaults: set[str] = set()

    def number(flag: str, otherwise: int) -> int:
        found = arguments.number(flag)
        if found:
            return found
        defaults.add(flag.replace("-", "_"))
        return otherwise

    max_loras = number("max-loras", DEFAULT_MAX_LORAS)
    parallel = number("data-parallel-size", 1)
    # Internal load balancing starts as many API servers as ranks (vLLM 0.32.0, `entrypoints/cli/serve.py`).
    external = {"data-parallel-external-lb", "data-parallel-rank", "headless"} & arguments.flags.keys()
    servers = 1 if external else arguments.number("data-parallel-size-local") or parallel
    return {
        "max_loras": max_loras,
        "max_cpu_loras": number("max-cpu-loras", max_loras),
        "max_lora_rank": number("max-lora-rank", DEFAULT_MAX_LORA_RANK),
        "data_parallel_size": parallel,
        "tensor_parallel_size": number("tensor-parallel-size", 1),
        "api_server_count": number("api-server-count", servers),
    }, frozenset(defaults)


def _engine(containers: Sequence[Mapping[str, Any]], port: int | str) -> Mapping[str, Any]:
    for container in containers:
        for declared in _maps(container.get("ports")):
            if port in (declared.get("containerPort"), declared.get("name")):
                return container
    for container in containers:
        words = [container.get("image"), *_texts(container.get("command")), *_texts(container.get("args"))]
        if any("vllm" in _text(word).lower() for word in words):
            return container
    return containers[0] if containers else {}


def _port(container: Mapping[str, Any], port: int | str) -> int | None:
    if isinstance(port, int):
        return port
    for declared in _maps(container.get("ports")):
        if declared.get("name") == port:
            return _number(declared.get("containerPort"))
    return int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else None


def _pod_ready(status: Mapping[str, Any]) -> bool:
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in _maps(status.get("conditions")))


def _environment(container: Mapping[str, Any], words: Sequence[str]) -> tuple[dict[str, str | None], frozenset[str]]:
    """The variables by name; those from elsewhere are None. Second, the names of all that are not known."""
    env: dict[str, str | None] = {}
    for entry in _maps(container.get("env")):
        name = _text(entry.get("name"))
        if name:
            # An entry without either has the empty value; of a repeated name the last counts.
            env[name] = None if entry.get("valueFrom") is not None else _text(entry.get("value"))
    unknown = {name for name, value in env.items() if value is None}
    for name in (UPDATING, PLUGINS, RESOLVER_DIRECTORY):
        if any(name in word for word in words) or (container.get("envFrom") and name not in env):
            unknown.add(name)
    return env, frozenset(unknown)


def _on(value: str | None) -> bool:
    # vLLM 0.32.0, `envs.py`: "1" or "true" in any case.
    return value is not None and value.strip().lower() in {"1", "true"}


def _split(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(value for value in values if value)


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _maps(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
