"""Values for the fleet's chart: real vLLM engines on this CPU, or fakes that answer as badly as a scenario needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e.engine.server import Options, environment
from e2e.engine.tiny_model import tiny_model
from e2e.engine.vllm_env import python_of

FLEET = "tiny"
BASE = "tiny-llama"
CLAIM = "adapters"
VLLM = "0.32.0"
CONTROL_PORT = 9000
"""Where fakes are told how to behave, on their pod's loopback."""
_TESTS = Path(__file__).parents[1] / "tests"


def fleet(image: str, **changes: Any) -> dict[str, Any]:
    """A fleet of vLLMs from the environment and model in the cache; ``image`` names the build of ours."""
    model = tiny_model(VLLM)
    environ = environment(Options(version=VLLM, model=model))
    mounts = [(python_of(VLLM).parents[1], "vllm"), (model, "model")]
    engines: dict[str, Any] = {
        "enabled": True,
        "replicas": 2,
        "model": str(model),
        "servedModelName": [BASE],
        "maxLoras": 2,
        "maxCpuLoras": 32,
        "maxLoraRank": 16,
        "image": {"repository": "localhost/lorafleet-engine", "tag": "e2e", "pullPolicy": "Never"},
        "command": [str(python_of(VLLM)), "-m", "vllm.entrypoints.openai.api_server"],
        "extraArgs": [
            "--dtype", "float32", "--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "8",
        ],
        "extraEnv": [
            {"name": name, "value": value}
            for name, value in environ.items()
            if name not in ("VLLM_ALLOW_RUNTIME_LORA_UPDATING",)
        ],
        "extraVolumes": [
            {"name": name, "hostPath": {"path": str(path), "type": "Directory"}} for path, name in mounts
        ],
        "extraVolumeMounts": [
            {"name": name, "mountPath": str(path), "readOnly": True} for path, name in mounts
        ],
        "cacheSize": "2Gi",
        "shmSize": "256Mi",
        "startupSeconds": 600,
        "leaveSeconds": 3,
        "terminationGracePeriodSeconds": 20,
        **changes,
    }  # fmt: skip
    return {
        "fleetName": FLEET,
        "baseModel": {"name": BASE, "aliases": [str(model)]},
        "storage": {"create": False, "claimName": CLAIM, "mountPath": "/adapters"},
        "drainTime": "2s",
        "deletionDeadline": "20s",
        "engines": engines,
        "router": _router(image),
    }


def fakes(image: str) -> dict[str, Any]:
    """A fleet of two fakes, of the same base model."""
    found = fleet(image, replicas=2)
    start = f"cd /fake && exec python3 -m tests.fake_vllm --bind 0.0.0.0:8000 --control {CONTROL_PORT}"
    settings = f"""--set check_files=false --set model={found["engines"]["model"]} --set 'served_names=["{BASE}"]'"""
    # What the chart appends are vLLM's flags, which the operator reads and a fake does not need.
    found["engines"] |= {
        "command": ["sh", "-c", f"{start} {settings}", "fake"],
        "extraVolumes": [{"name": "fake", "hostPath": {"path": str(_TESTS), "type": "Directory"}}],
        "extraVolumeMounts": [{"name": "fake", "mountPath": "/fake/tests", "readOnly": True}],
        # As the first process of its container it does not hear SIGTERM.
        "leaveSeconds": 0,
        "terminationGracePeriodSeconds": 1,
    }
    found["router"]["replicas"] = 1
    return found


def _router(image: str) -> dict[str, Any]:
    """Routers that fit on a node of two cores beside two engines."""
    small = {"requests": {"cpu": "10m", "memory": "64Mi"}}
    return {
        "replicas": 2,
        "image": {"repository": "localhost/lorafleet", "tag": "e2e", "pullPolicy": "Never"},
        "resources": small,
        # The tag stays the same when the image changes: without this the pods would, too.
        "podAnnotations": {"lorafleet.dev/image": image},
        "envoy": {
            "image": {"repository": "localhost/lorafleet-envoy", "tag": "e2e", "pullPolicy": "Never"},
            "resources": small,
            "concurrency": 1,
        },
        "leave": "3s",
        "terminationGracePeriodSeconds": 30,
        "minReadySeconds": 0,
    }
