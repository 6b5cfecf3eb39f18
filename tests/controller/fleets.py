"""A fleet in memory for tests of plans, Jobs and statuses: no API server, no engine."""

from typing import Any

from lorafleet.controller.objects import parse_adapter, parse_fleet
from lorafleet.controller.state import Engine, FleetState, SyncItem
from lorafleet.engines.facts import engine_facts

META = {"namespace": "ns", "resourceVersion": "1", "generation": 1}
SOURCES: dict[str, dict[str, Any]] = {
    "1": {"volume": {"path": "incoming/1"}},
    "2": {"volume": {"path": "x", "claimName": "theirs"}},
    "hub": {"huggingFace": {"repo": "acme/python", "secretName": "hub"}},
    "s3": {"objectStore": {"url": "s3://models/python/", "secretName": "s3.keys"}},
    "oci": {"oci": {"reference": "registry/python:1", "pullSecretName": "pull"}},
    "http": {"http": {"url": "https://files/python.tar", "sha256": "0" * 64, "secretName": "headers"}},
    "anonymous": {"http": {"url": "https://files/other.tar", "sha256": "1" * 64}},
}
SPEC: dict[str, Any] = {
    "baseModel": {"name": "base", "aliases": ["/models/base"]},
    "engines": {"selector": {"matchLabels": {"app": "vllm"}}},
    "storage": {"claimName": "adapters", "mountPath": "/adapters"},
}


def state_of(spec: dict[str, Any] | None = None, status: dict[str, Any] | None = None) -> FleetState:
    """A fleet with an adapter that has a version from each source."""
    one = FleetState(("ns", "fleet"), discovered=True)
    one.fleet = parse_fleet(
        {
            "metadata": {**META, "name": "fleet", "uid": "f"},
            "spec": {**SPEC, **(spec or {})},
            "status": {"engineModel": "/models/base", "highestId": 41, **(status or {})},
        }
    )
    add_adapter(one, "python")
    return one


def beside(spec: dict[str, Any] | None = None) -> FleetState:
    """Another fleet of the namespace, without adapters, on the same claim if its spec names no other."""
    one = state_of(spec)
    assert one.fleet
    one.ref, one.fleet.name, one.fleet.uid = ("ns", "other"), "other", "o"
    one.contribute("python", None)
    one.adapters.clear()
    return one


def add_adapter(
    state: FleetState,
    name: str,
    status: dict[str, Any] | None = None,
    created: str = "",
    uid: str = "a",
    sources: dict[str, Any] | None = None,
) -> None:
    """One more adapter."""
    sources = sources or SOURCES
    versions = [{"name": version, "source": source} for version, source in sources.items()]
    state.adapters[name] = parse_adapter(
        {
            "metadata": {**META, "name": name, "uid": uid, "creationTimestamp": created},
            "spec": {"fleet": "fleet", "versions": versions, "activeVersion": next(iter(sources))},
            "status": status or {},
        }
    )
    state.contribute(name, state.adapters[name])


def hash_of(state: FleetState, version: str, adapter: str = "python") -> str:
    """The hash of a version's entry."""
    spec = state.adapters[adapter].spec
    assert spec
    return next(entry for entry in spec.versions if entry.name == version).fingerprint


def item_of(state: FleetState, version: str) -> SyncItem:
    """The item that publishes a version."""
    return SyncItem("python", "a", version=version, entry=hash_of(state, version))


def engine(name: str, *args: str, listing: dict[str, str] | None = None) -> Engine:
    """A usable engine that was started with these arguments."""
    pod: dict[str, Any] = {
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"containers": [{"name": "vllm", "args": ["--model", "/models/base", *args]}]},
        "status": {
            "podIP": "127.1.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "vllm", "containerID": "c", "ready": True, "restartCount": 0}],
        },
    }
    one = Engine(engine_facts(pod, 8000), version="0.32.0")
    one.listing = {} if listing is None else listing
    return one
