"""Adapters and fleets as an API server sends them, in each state that the commands show."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from lorafleet.api.model import moment, timestamp

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


def ago(seconds: float) -> str:
    """A timestamp before NOW."""
    return timestamp(NOW - timedelta(seconds=seconds))


def condition(kind: str, status: bool, reason: str, message: str = "", generation: int = 3) -> dict[str, Any]:
    """A condition."""
    return {
        "type": kind,
        "status": str(status),
        "reason": reason,
        "message": message,
        "lastTransitionTime": ago(240),
        "observedGeneration": generation,
    }


def conditions(state: str, reason: str, message: str = "", available: bool = True) -> list[dict[str, Any]]:
    """Ready, Reconciling and Stalled in one of the states ready, reconciling, stalled; and Available."""

    def flag(kind: str, holds: bool) -> dict[str, Any]:
        return condition(kind, holds, reason if holds else "Settled", message if holds else "")

    return [
        condition("Ready", state == "ready", reason, message),
        flag("Reconciling", state == "reconciling"),
        flag("Stalled", state == "stalled"),
        condition("Available", available, "Serving" if available else "NothingServes", "version 1.1.0 serves"),
    ]


def statistics(count: int, success: float | None = None, latency: float = 400.0, **more: Any) -> dict[str, Any]:
    """What routers saw of a version."""
    seen = {"requestCount": count, "averageLatencyMs": latency, "averageFirstTokenMs": latency / 8, "lastUsed": ago(2)}
    return seen | ({"successRate": success} if success is not None else {}) | more


def version(name: str, phase: str = "Loaded", loaded: int | None = 2, ready: int | None = 2, **more: Any) -> Any:
    """A version's status."""
    counts = {"loadedEngines": loaded, "readyEngines": ready} if ready is not None else {}
    return {
        "name": name,
        "phase": phase,
        "servedName": f"python-lora/{name}-0123456789ab",
        "entryHash": f"hash-{name}",
        **counts,
        **more,
    }


def traffic(**shares: int) -> list[dict[str, Any]]:
    """Shares by version, such as ``v1_1_0=95``."""
    names = {key.removeprefix("v").replace("_", "."): weight for key, weight in shares.items()}
    return [
        {"version": name, "servedName": f"python-lora/{name}-0123456789ab", "weight": weight}
        for name, weight in names.items()
    ]


def adapter(name: str = "python-lora", spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    """An adapter with the versions 1.1.0 and 1.2.0, three steps and an analysis; ``status`` by the API's names."""
    entry = {"source": {"volume": {"path": "incoming/x"}}}
    return {
        "apiVersion": "lorafleet.dev/v1alpha1",
        "kind": "LoRAAdapter",
        "metadata": {
            "name": name,
            "namespace": "specialists",
            "creationTimestamp": ago(3 * 86400),
            "generation": 3,
            "resourceVersion": "1",
            "uid": name,
        },
        "spec": {
            "fleet": "hi-moe",
            "versions": [{"name": "1.1.0", **entry}, {"name": "1.2.0", **entry}],
            "rollout": {
                "steps": [{"weight": 5, "pause": "10m"}, {"weight": 25, "pause": "30m"}, {"weight": 50, "pause": {}}],
                "analysis": {"maxErrorRate": 0.05, "maxLatencyRatio": 1.3, "failureLimit": 2},
            },
            **(spec or {}),
        },
        "status": {"observedGeneration": 3, "activeVersion": "1.2.0", **status},
    }


def serving(name: str = "python-lora") -> dict[str, Any]:
    """One version serves all."""
    return adapter(
        name,
        spec={"activeVersion": "1.1.0"},
        stableVersion="1.1.0",
        loaded="2/2",
        traffic=traffic(v1_1_0=100),
        versions=[version("1.1.0", provenAt=ago(90000), probedEngines=2, statistics=statistics(120331, 0.9988))],
        history=[{"at": ago(90000), "version": "1.1.0", "what": "Served"}],
        conditions=conditions("ready", "Serving", "version 1.1.0 serves on 2 of 2 engines"),
    )


def rolling(name: str = "python-lora", **rollout: Any) -> dict[str, Any]:
    """1.2.0 is at its second step, was judged, and goes on."""
    at = {
        "version": "1.2.0",
        "phase": "Progressing",
        "step": 2,
        "steps": 3,
        "weight": 25,
        "startedAt": ago(1500),
        "stepSince": ago(840),
        "progressAt": ago(20),
        "analysis": {
            "at": ago(20),
            "since": ago(20),
            "verdict": "Passed",
            "requests": 512,
            "measures": [
                {
                    "name": "errorRate",
                    "value": 0.0039,
                    "bound": "<= 0.05",
                    "verdict": "Passed",
                    "message": "2 of 512 requests failed; between 0.1% and 1.4% with 95% confidence",
                },
                {
                    "name": "latencyRatio",
                    "value": 1.0488,
                    "bound": "<= 1.3",
                    "verdict": "Passed",
                    "message": "430 ms on average, 410 ms on stable",
                },
            ],
        },
        **rollout,
    }
    text = "version 1.2.0 has 25% of the requests at step 2 of 3"
    return adapter(
        name,
        stableVersion="1.1.0",
        loaded="2/2",
        traffic=traffic(v1_1_0=75, v1_2_0=25),
        rollout={key: value for key, value in at.items() if value is not None},
        versions=[
            version("1.1.0", provenAt=ago(90000), probedEngines=2, statistics=statistics(120331, 0.9988)),
            version("1.2.0", probedEngines=2, statistics=statistics(4127, 0.9961, 430)),
        ],
        history=[
            {"at": ago(90000), "version": "1.1.0", "what": "Served"},
            {"at": ago(1500), "version": "1.2.0", "what": "Started", "message": "3 steps"},
        ],
        conditions=conditions("reconciling", "RolloutProgressing", text),
    )


def waiting() -> dict[str, Any]:
    """1.2.0 is at the step that waits for a person."""
    text = "version 1.2.0 stays at 50 % until a person promotes it: kubectl lorafleet promote"
    found = rolling(step=3, weight=50, phase="Paused", held="WaitingForPromotion", message=text, stepSince=ago(60))
    found["status"]["traffic"] = traffic(v1_1_0=50, v1_2_0=50)
    found["status"]["conditions"] = conditions("reconciling", "WaitingForPromotion", f"step 3 of 3: {text}")
    return found


def aborted() -> dict[str, Any]:
    """1.2.0 failed its analysis and was taken back."""
    why = "61 of 480 requests failed, 12.7 %: between 10.0 % and 16.0 % with 95 % confidence, expected <= 5 %"
    text = (
        f"version 1.2.0 was taken back (AnalysisFailed: {why}); version 1.1.0 serves: set activeVersion to 1.1.0 in"
        " Git, append a new version, or kubectl lorafleet retry"
    )
    return adapter(
        stableVersion="1.1.0",
        loaded="2/2",
        traffic=traffic(v1_1_0=100),
        versions=[
            version("1.1.0", provenAt=ago(90000), statistics=statistics(120331, 0.9988)),
            version("1.2.0", phase="Draining", statistics=statistics(480, 0.873, 910)),
        ],
        aborted=[
            {
                "version": "1.2.0",
                "entryHash": "hash-1.2.0",
                "at": ago(120),
                "reason": "AnalysisFailed",
                "message": why,
            }
        ],
        history=[
            {"at": ago(90000), "version": "1.1.0", "what": "Served"},
            {"at": ago(1500), "version": "1.2.0", "what": "Started"},
            {"at": ago(120), "version": "1.2.0", "what": "Aborted", "message": "61 of 480 requests failed"},
        ],
        conditions=conditions("stalled", "RolloutAborted", text),
    )


def fresh() -> dict[str, Any]:
    """Nobody has looked at it yet."""
    found = adapter("new-lora")
    found["status"] = {}
    return found


def engine(name: str, ready: bool = True, loaded: int = 2, wanted: int = 2, **more: Any) -> dict[str, Any]:
    """An engine's row."""
    return {"name": name, "ready": ready, "loaded": loaded, "wanted": wanted, "version": "0.32.0", **more}


def fleet(*engines: dict[str, Any], **status: Any) -> dict[str, Any]:
    """A fleet of these engines."""
    text = f"{sum(one['ready'] for one in engines)} of {len(engines)} engines are usable"
    return {
        "apiVersion": "lorafleet.dev/v1alpha1",
        "kind": "SpecialistFleet",
        "metadata": {
            "name": "hi-moe",
            "namespace": "specialists",
            "creationTimestamp": ago(40 * 86400),
            "generation": 3,
            "resourceVersion": "1",
            "uid": "fleet",
        },
        "spec": {
            "baseModel": {"name": "Qwen/QwQ-32B"},
            "engines": {"selector": {"matchLabels": {"app": "vllm"}}, "port": 8000},
            "storage": {"claimName": "adapters", "mountPath": "/adapters"},
        },
        "status": {
            "observedGeneration": 3,
            "readyEngines": sum(one["ready"] for one in engines),
            "totalEngines": len(engines),
            "adapters": 4,
            "rollingOut": 1,
            "routers": 2,
            "storage": {"usedBytes": 3 * 2**30, "freeBytes": 97 * 2**30, "lastScrub": ago(7200), "scrubbed": 8},
            "memory": {"maxLoras": 16, "maxCpuLoras": 32, "wanted": 5, "preallocatedBytes": 2 * 2**30},
            "engines": list(engines),
            "conditions": conditions("ready", "EnginesHealthy", text),
            **status,
        },
    }


def live(item: dict[str, Any], namespace: str, name: str | None = None) -> dict[str, Any]:
    """The object for a real API server: in a namespace, with all its times as long ago as they were before NOW."""
    shift = datetime.now(UTC) - NOW
    name = name or item["metadata"]["name"]
    text = STAMP.sub(lambda found: timestamp(moment(found[0]) + shift), json.dumps(item))
    made: dict[str, Any] = json.loads(text.replace('"python-lora/', f'"{name}/'))
    made["metadata"] = {"name": name, "namespace": namespace}
    if labels := item["metadata"].get("labels"):
        made["metadata"]["labels"] = labels
    return made
