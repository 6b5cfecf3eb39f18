"""The shipped CRDs on a real API server: what it accepts, what it refuses and in which words."""

from typing import Any

import pytest
from pydantic import ValidationError

from lorafleet.api import crd, names
from lorafleet.api.adapter import LoRAAdapterSpec
from lorafleet.api.fleet import SpecialistFleetSpec
from lorafleet.kube import KubeError, path
from tests.harness.plane import ROOT, Plane

VOLUME = {"volume": {"path": "incoming/x"}}


def adapter(**spec: Any) -> dict[str, Any]:
    """A good adapter with changes."""
    return {"fleet": "fleet", "versions": [{"name": "1", "source": VOLUME}], **spec}


def source(**schemes: Any) -> dict[str, Any]:
    """An adapter whose version comes from there."""
    return adapter(versions=[{"name": "1", "source": schemes}])


def fleet(**spec: Any) -> dict[str, Any]:
    """A good fleet with changes."""
    return {
        "baseModel": {"name": "base"},
        "engines": {"selector": {"matchLabels": {"app": "vllm"}}},
        "storage": {"claimName": "claim", "mountPath": "/adapters"},
        **spec,
    }


STORAGE = {"claimName": "claim", "mountPath": "/adapters"}
REF = {"name": "trust", "key": "ca.pem"}
KEY = {"publicKey": {"name": "trust", "key": "signer.pub"}}
SIGSTORE = {"sigstore": {"identity": "a@b.c", "issuer": "https://issuer", "trustConfig": REF}}
FULL = adapter(
    domains=["python", "testing"],
    versions=[
        {
            "name": "1.0.0",
            "source": {
                "huggingFace": {
                    "repo": "acme/python",
                    "revision": "refs/pr/1",
                    "subfolder": "best/adapter",
                    "endpoint": "http://mirror:8080/hub",
                    "secretName": "hub",
                }
            },
        },
        {
            "name": "1.1.0",
            "source": {
                "objectStore": {
                    "url": "s3://m/p/1.1.0/",
                    "endpoint": "http://minio.minio:9000",
                    "region": "eu-west-1",
                    "secretName": "s3",
                }
            },
        },
        {
            "name": "1.2.0",
            "source": {
                "oci": {
                    "reference": f"registry:5000/acme/p:1@sha256:{'0' * 64}",
                    "subfolder": "model",
                    "plainHttp": True,
                    "pullSecretName": "pull",
                }
            },
            "digest": "sha256:" + "0" * 64,
        },
        {"name": "1.3.0", "source": {"http": {"url": "https://example/x.tar", "sha256": "0" * 64}}},
        {"name": "1.4.0", "source": VOLUME},
        {
            "name": "1.5.0",
            "source": {
                "http": {
                    "url": "https://example/p/?v=1",
                    "files": [{"path": "adapter_config.json", "sha256": "0" * 64}],
                    "subfolder": "a",
                    "secretName": "headers",
                }
            },
        },
        {"name": "1.6.0", "source": {"objectStore": {"url": "az://container"}}},
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
        adapter(versions=[{"name": "1", "source": {**VOLUME, "oci": {"reference": "registry/x:1"}}}]),
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
    "analysis without a bound": (
        adapter(rollout={"steps": [{"weight": 5}], "analysis": {"interval": "1m"}}),
        "something to judge by",
    ),
    "analysis without a step": (adapter(rollout={"analysis": {"maxErrorRate": 0.5}}), "give a step with a weight"),
    "query without bounds": (
        adapter(
            rollout={"steps": [{"weight": 5}], "analysis": {"queries": [{"name": "q", "query": "up"}]}},
        ),
        "a query needs min, max or both",
    ),
    "prompt without an answer": (adapter(probe={"prompts": [{"prompt": "a"}]}), "a golden prompt needs"),
    "pause with content": (adapter(rollout={"steps": [{"weight": 5, "pause": {"a": 1}}]}), "at most 0"),
    "repository with a path": (source(huggingFace={"repo": "a/b/c"}), "should match"),
    "revision with a space": (source(huggingFace={"repo": "a/b", "revision": "a b"}), "should match"),
    "folder out of the repository": (source(huggingFace={"repo": "a/b", "subfolder": "a/../b"}), "stays inside"),
    "absolute folder": (source(huggingFace={"repo": "a/b", "subfolder": "/a"}), "should match"),
    "endpoint with a password": (source(huggingFace={"repo": "a/b", "endpoint": "https://u:p@hub"}), "should match"),
    "bucket of another kind": (source(objectStore={"url": "ftp://bucket/x"}), "should match"),
    "bucket with a password": (source(objectStore={"url": "s3://key:secret@bucket/x"}), "should match"),
    "bucket with a query": (source(objectStore={"url": "s3://bucket/x?a=b"}), "should match"),
    "odd region": (source(objectStore={"url": "s3://b/x", "region": "eu west"}), "should match"),
    "reference without a registry": (source(oci={"reference": "x:1"}), "should match"),
    "reference with a short digest": (source(oci={"reference": "registry/x@sha256:00"}), "should match"),
    "folder out of the artifact": (source(oci={"reference": "registry/x:1", "subfolder": ".."}), "stays inside"),
    "archive without its hash": (source(http={"url": "https://h/x.tar"}), "either sha256"),
    "archive and files": (
        source(http={"url": "https://h/x", "sha256": "0" * 64, "files": [{"path": "a", "sha256": "0" * 64}]}),
        "either sha256",
    ),
    "file without its hash": (source(http={"url": "https://h/x", "files": [{"path": "a"}]}), "Required value"),
    "file in a folder": (
        source(http={"url": "https://h/x", "files": [{"path": "a/b", "sha256": "0" * 64}]}),
        "should match",
    ),
    "file twice": (
        source(http={"url": "https://h/x", "files": [{"path": "a", "sha256": "0" * 64}] * 2}),
        "Duplicate value",
    ),
    "address with a password": (source(http={"url": "https://u:p@h/x.tar", "sha256": "0" * 64}), "should match"),
    "folder out of the archive": (
        source(http={"url": "https://h/x.tar", "sha256": "0" * 64, "subfolder": "a//b"}),
        "stays inside",
    ),
    "bad name of a secret": (source(huggingFace={"repo": "a/b", "secretName": "Not A Name"}), "should match"),
    "fleet name too long": (adapter(fleet="x" * 64), "may not be more than 63"),
    "error rate above 1": (adapter(rollout={"analysis": {"maxErrorRate": 1.5}}), "less than or equal to 1"),
}

REFUSED_FLEETS = {
    "empty selector": (fleet(engines={"selector": {}}), "would take every pod"),
    "port 0": (fleet(engines={"selector": {"matchLabels": {"a": "b"}}, "port": 0}), "from 1 to 65535"),
    "relative mount path": (fleet(storage={"claimName": "c", "mountPath": "adapters"}), "should match"),
    "no base model": (fleet(baseModel={"name": ""}), "at least 1 chars"),
    "bad drain time": (fleet(drainTime="soon"), "should match"),
    "base model twice": (
        fleet(baseModel={"name": "b", "config": {"hidden_size": 1}, "volume": {"claimName": "c"}}),
        "not from both",
    ),
    "base model out of its claim": (
        fleet(baseModel={"name": "b", "volume": {"claimName": "c", "path": "a/../../b"}}),
        "stays inside",
    ),
    "base model at an absolute path": (
        fleet(baseModel={"name": "b", "volume": {"claimName": "c", "path": "/a"}}),
        "leading slash",
    ),
    "base model of a claim without a name": (fleet(baseModel={"name": "b", "volume": {"path": "a"}}), "Required value"),
    "odd quota": (fleet(storage={**STORAGE, "quota": "1.5Gi"}), "should match"),
    "scrub without a schedule": (fleet(storage={**STORAGE, "scrub": {}}), "Required value"),
    "odd schedule": (fleet(storage={**STORAGE, "scrub": {"schedule": "daily"}}), "should match"),
    "unknown treatment of pickles": (fleet(artifacts={"pickle": "Load"}), "Unsupported value"),
    "unknown policy": (fleet(verification={"policy": "Trust"}), "Unsupported value"),
    "signature without its policy": (fleet(verification={"signature": KEY}), "only with it"),
    "policy without a signature": (fleet(verification={"policy": "Signature"}), "only with it"),
    "no way to verify": (fleet(verification={"policy": "Signature", "signature": {}}), "exactly one of publicKey"),
    "two ways to verify": (
        fleet(verification={"policy": "Signature", "signature": {**KEY, **SIGSTORE}}),
        "exactly one of publicKey",
    ),
    "certificate without an identity": (
        fleet(verification={"policy": "Signature", "signature": {"certificate": {"authorities": REF}}}),
        "Required value",
    ),
    "no tensor parallelism": (fleet(capacity={"tensorParallelSize": 0}), "greater than or equal to 1"),
}

WHOLE_FLEETS = {
    "config": fleet(
        baseModel={
            "name": "b",
            "config": {
                "hidden_size": 64,
                "rope_scaling": {"factor": 8.0, "original": None},
                "eos": [1, 2],
                "tie": True,
            },
        },
        artifacts={"pickle": "Convert", "maxSize": "10Gi"},
        verification={"policy": "Digest"},
    ),
    "volume": fleet(
        baseModel={"name": "b", "volume": {"claimName": "models", "path": "qwen/32b"}},
        storage={**STORAGE, "quota": "100Gi", "scrub": {"schedule": "*/5 0-6 * JAN-MAR mon,tue"}},
        verification={"policy": "Signature", "signature": KEY},
        capacity={"maxLoras": 4, "maxCpuLoras": 16, "maxLoraRank": 64, "tensorParallelSize": 8},
    ),
    "certificate": fleet(
        baseModel={"name": "b", "volume": {"claimName": "models"}},
        storage={**STORAGE, "scrub": {"schedule": "@daily"}},
        verification={
            "policy": "Signature",
            "signature": {"certificate": {"authorities": REF, "identity": "ml@acme.example"}},
        },
    ),
    "sigstore": fleet(verification={"policy": "Signature", "signature": SIGSTORE}),
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
    assert LoRAAdapterSpec.model_validate(found).not_acted_on() == ("spec.domains",)


@pytest.mark.parametrize("case", WHOLE_FLEETS)
async def test_everything_that_a_fleet_may_say_is_accepted_and_read_back(
    plane: Plane, namespace: str, case: str
) -> None:
    await plane.put(namespace, names.FLEET_KIND, names.FLEET_PLURAL, "full", WHOLE_FLEETS[case])
    found = (await plane.get_fleet(namespace, "full"))["spec"]
    assert SpecialistFleetSpec.model_validate(found) == SpecialistFleetSpec.model_validate(WHOLE_FLEETS[case])


async def test_the_models_refuse_what_the_api_server_refuses_where_they_can(plane: Plane) -> None:
    """Patterns stand once; what only a CEL rule says is the API server's alone."""
    patterns = {case: spec for case, (spec, words) in REFUSED_ADAPTERS.items() if words == "should match"}
    for spec in patterns.values():
        with pytest.raises(ValidationError):
            LoRAAdapterSpec.model_validate(spec)


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


async def test_what_is_stored_is_what_was_written_so_that_nothing_drifts_from_git(plane: Plane, namespace: str) -> None:
    await plane.put(namespace, names.FLEET_KIND, names.FLEET_PLURAL, "one", fleet())
    assert (await plane.get_fleet(namespace, "one"))["spec"] == fleet()
    hub = {"name": "2", "source": {"huggingFace": {"repo": "acme/python"}}}
    spec = adapter() | {
        "versions": [hub],
        "rollout": {"steps": [{"weight": 5}], "analysis": {"maxErrorRate": 0.5}},
        "probe": {},
    }
    await plane.put(namespace, names.ADAPTER_KIND, names.ADAPTER_PLURAL, "two", spec)
    assert (await plane.get_adapter(namespace, "two"))["spec"] == spec


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
