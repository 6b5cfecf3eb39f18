"""The shipped CRDs on a real API server: what it accepts, what it refuses and in which words."""

from typing import Any

import pytest

from lorafleet.api import crd, names
from lorafleet.api.adapter import LoRAAdapterSpec
from lorafleet.api.fleet import SpecialistFleetSpec
from lorafleet.controller.kube import KubeError, path
from tests.harness.plane import ROOT, Plane

VOLUME = {"volume": {"path": "incoming/x"}}


def adapter(**spec: Any) -> dict[str, Any]:
    """A good adapter with changes."""
    return {"fleet": "fleet", "versions": [{"name": "1", "source": VOLUME}], **spec}


def fleet(**spec: Any) -> dict[str, Any]:
    """A good fleet with changes."""
    return {
        "baseModel": {"name": "base"},
        "engines": {"selector": {"matchLabels": {"app": "vllm"}}},
        "storage": {"claimName": "claim", "mountPath": "/adapters"},
        **spec,
    }


FULL = adapter(
    domains=["python", "testing"],
    versions=[
        {"name": "1.0.0", "source": {"huggingFace": {"repo": "acme/python", "revision": "3f2a"}}},
        {"name": "1.1.0", "source": {"objectStore": {"url": "s3://m/p/1.1.0/", "secretName": "s3"}}},
        {"name": "1.2.0", "source": {"oci": {"reference": "example/p:1"}}, "digest": "sha256:" + "0" * 64},
        {"name": "1.3.0", "source": {"http": {"url": "https://example/x.tar", "sha256": "0" * 64}}},
        {"name": "1.4.0", "source": VOLUME},
    ],
    activeVersion="1.2.0",
    traffic=[{"version": "1.2.0", "weight": 70}, {"version": "1.4.0", "weight": 30}],
    rollout={
        "steps": [{"weight": 5, "pause": "10m"}, {"weight": 25, "pause": "1h30m"}, {"weight": 50, "pause": {}}],
        "analysis": {
            "interval": "1m",
            "minRequests": 50,
            "maxErrorRate": 0.05,
            "maxLatencyRatio": 1.3,
            "failureLimit": 2,
        },
        "progressDeadline": "1h",
    },
)

REFUSED_ADAPTERS = {
    "no source": (adapter(versions=[{"name": "1", "source": {}}]), "exactly one of"),
    "two sources": (
        adapter(versions=[{"name": "1", "source": {**VOLUME, "oci": {"reference": "x:1"}}}]),
        "exactly one of",
    ),
    "same version twice": (
        adapter(versions=[{"name": "1", "source": VOLUME}, {"name": "1", "source": VOLUME}]),
        "Duplicate value",
    ),
    "no version": (adapter(versions=[]), "at least 1 items"),
    "unknown active version": (adapter(activeVersion="2"), "activeVersion names no entry"),
    "unknown version in traffic": (adapter(traffic=[{"version": "2", "weight": 100}]), "no entry of versions"),
    "weights below 100": (adapter(traffic=[{"version": "1", "weight": 99}]), "sum up to 100"),
    "weight above 100": (adapter(traffic=[{"version": "1", "weight": 101}]), "less than or equal to 100"),
    "bad version name": (adapter(versions=[{"name": "a/b", "source": VOLUME}]), "should match"),
    "version with @": (adapter(versions=[{"name": "a@b", "source": VOLUME}]), "should match"),
    "absolute path": (adapter(versions=[{"name": "1", "source": {"volume": {"path": "/etc"}}}]), "leading slash"),
    "path out of the claim": (
        adapter(versions=[{"name": "1", "source": {"volume": {"path": "a/../../b"}}}]),
        "'..' parts",
    ),
    "bad pin": (adapter(versions=[{"name": "1", "source": VOLUME, "digest": "sha256:x"}]), "should match"),
    "bad pause": (adapter(rollout={"steps": [{"weight": 5, "pause": "soon"}]}), "should match"),
    "pause with content": (adapter(rollout={"steps": [{"weight": 5, "pause": {"a": 1}}]}), "at most 0"),
    "fleet name too long": (adapter(fleet="x" * 64), "may not be more than 63"),
    "error rate above 1": (adapter(rollout={"analysis": {"maxErrorRate": 1.5}}), "less than or equal to 1"),
}

REFUSED_FLEETS = {
    "empty selector": (fleet(engines={"selector": {}}), "would take every pod"),
    "port 0": (fleet(engines={"selector": {"matchLabels": {"a": "b"}}, "port": 0}), "from 1 to 65535"),
    "relative mount path": (fleet(storage={"claimName": "c", "mountPath": "adapters"}), "should match"),
    "no base model": (fleet(baseModel={"name": ""}), "at least 1 chars"),
    "bad drain time": (fleet(drainTime="soon"), "should match"),
}


@pytest.mark.parametrize("case", REFUSED_ADAPTERS)
async def test_a_bad_adapter_is_refused_with_a_reason(plane: Plane, namespace: str, case: str) -> None:
    spec, words = REFUSED_ADAPTERS[case]
    with pytest.raises(KubeError) as caught:
        await plane.put(namespace, names.ADAPTER_KIND, names.ADAPTER_PLURAL, "bad", spec)
    assert caught.value.status == 422
    assert words in caught.value.message


@pytest.mark.parametrize("case", REFUSED_FLEETS)
async def test_a_bad_fleet_is_refused_with_a_reason(plane: Plane, namespace: str, case: str) -> None:
    spec, words = REFUSED_FLEETS[case]
    with pytest.raises(KubeError) as caught:
        await plane.put(namespace, names.FLEET_KIND, names.FLEET_PLURAL, "bad", spec)
    assert caught.value.status == 422
    assert words in caught.value.message


async def test_the_whole_api_of_the_design_is_accepted_and_read_back(plane: Plane, namespace: str) -> None:
    await plane.put(namespace, names.ADAPTER_KIND, names.ADAPTER_PLURAL, "full", FULL)
    found = (await plane.get_adapter(namespace, "full"))["spec"]
    assert LoRAAdapterSpec.model_validate(found) == LoRAAdapterSpec.model_validate(FULL)
    assert LoRAAdapterSpec.model_validate(found).not_acted_on() == ("spec.domains", "spec.traffic", "spec.rollout")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"versions": [{"name": "1", "source": {"volume": {"path": "other"}}}]}, "never changes once written"),
        ({"versions": [{"name": "1", "source": VOLUME, "digest": "sha256:" + "0" * 64}]}, "never changes"),
        ({"fleet": "other"}, "delete the adapter and create it"),
    ],
)
async def test_what_never_changes_is_refused(plane: Plane, namespace: str, change: dict[str, Any], words: str) -> None:
    await plane.put(namespace, names.ADAPTER_KIND, names.ADAPTER_PLURAL, "one", adapter())
    where = path(names.API_VERSION, names.ADAPTER_PLURAL, namespace, "one")
    with pytest.raises(KubeError) as caught:
        await plane.merge(where, {"spec": change})
    assert words in caught.value.message


async def test_versions_are_appended_and_removed(plane: Plane, namespace: str) -> None:
    await plane.put(namespace, names.ADAPTER_KIND, names.ADAPTER_PLURAL, "one", adapter())
    where = path(names.API_VERSION, names.ADAPTER_PLURAL, namespace, "one")
    second = {"name": "2", "source": VOLUME}
    await plane.merge(where, {"spec": {"versions": [*adapter()["versions"], second]}})
    await plane.merge(where, {"spec": {"versions": [second]}})
    assert [v["name"] for v in (await plane.get_adapter(namespace, "one"))["spec"]["versions"]] == ["2"]


async def test_names_that_engines_could_not_carry_are_refused(plane: Plane, namespace: str) -> None:
    for name in ("has.dots", "x" * 64):
        with pytest.raises(KubeError) as caught:
            await plane.put(namespace, names.ADAPTER_KIND, names.ADAPTER_PLURAL, name, adapter())
        assert "metadata.name" in caught.value.message


async def test_defaults_of_the_api_server_are_those_of_the_models(plane: Plane, namespace: str) -> None:
    await plane.put(namespace, names.FLEET_KIND, names.FLEET_PLURAL, "one", fleet())
    found = (await plane.get_fleet(namespace, "one"))["spec"]
    assert SpecialistFleetSpec.model_validate(found) == SpecialistFleetSpec.model_validate(fleet())


def test_the_files_are_up_to_date() -> None:
    for name, text in crd.render().items():
        for folder in ("crds", "charts/lorafleet/files/crds"):
            assert (ROOT / folder / name).read_text() == text, "run `make generate`"


def described(schema: dict[str, Any], where: str = "") -> list[str]:
    """The paths of fields without an explanation."""
    missing = []
    for name, field in schema.get("properties", {}).items():
        here = f"{where}.{name}"
        if not field.get("description") and here != ".metadata":
            missing.append(here)
        missing += described(field, here) + described(field.get("items", {}), here)
    return missing


def test_every_field_is_explained() -> None:
    for one in crd.crds().values():
        schema = one["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        assert described(schema) == []
