"""The page on GitOps: Argo CD's Lua says the health that the page says, and nothing that is written is drift."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import lua51

from e2e.cluster.paths import bin_dir
from lorafleet.api import names
from lorafleet.kube import path
from tests.harness.plane import Plane

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
ARGO = yaml.safe_load((EXAMPLES / "argo-cd.yaml").read_text())["data"]


def run(code: str, obj: dict[str, Any]) -> dict[Any, Any]:
    """What a script of Argo CD returns for an object."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = _table(lua, obj)
    result = lua.execute(code)
    return {key: dict(value) if lua51.lua_type(value) == "table" else value for key, value in result.items()}


def _table(lua: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return lua.table_from({key: _table(lua, item) for key, item in value.items()})
    if isinstance(value, list):
        return lua.table_from([_table(lua, item) for item in value])
    return value


def obj(*conditions: tuple[str, str, str], generation: int = 2, **status: Any) -> dict[str, Any]:
    listed = [{"type": kind, "status": value, "reason": why, "message": why} for kind, value, why in conditions]
    return {
        "metadata": {"generation": 2},
        "status": {"observedGeneration": generation, "conditions": listed, **status},
    }


@pytest.mark.parametrize("kind", ["LoRAAdapter", "SpecialistFleet"])
@pytest.mark.parametrize(
    ("expected", "given"),
    [
        ("Progressing", {"metadata": {"generation": 1}}),
        ("Progressing", obj(("Ready", "True", "Serving"), generation=1)),
        ("Healthy", obj(("Ready", "True", "Serving"), ("Stalled", "False", "Settled"))),
        ("Progressing", obj(("Ready", "False", "RolloutProgressing"), ("Reconciling", "True", "RolloutProgressing"))),
        ("Suspended", obj(("Ready", "False", "RolloutPaused"), ("Reconciling", "True", "RolloutPaused"))),
        ("Suspended", obj(("Ready", "False", "WaitingForPromotion"))),
        ("Suspended", obj(("Ready", "True", "Suspended"))),
        ("Degraded", obj(("Ready", "False", "RolloutAborted"), ("Stalled", "True", "RolloutAborted"))),
    ],
)
def test_argo_cd_shows_the_health(kind: str, expected: str, given: dict[str, Any]) -> None:
    assert run(ARGO[f"resource.customizations.health.lorafleet.dev_{kind}"], given)["status"] == expected


def actions() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(ARGO["resource.customizations.actions.lorafleet.dev_LoRAAdapter"])
    return found


@pytest.mark.parametrize(
    ("status", "enabled"),
    [
        ({}, {"rollback"}),
        ({"rollout": {"paused": False}}, {"promote", "promote-full", "pause", "abort"}),
        ({"rollout": {"paused": True}}, {"resume", "abort"}),
        ({"aborted": [{"version": "2"}]}, {"retry", "rollback"}),
    ],
)
def test_argo_cd_offers_the_verbs_that_make_sense(status: dict[str, Any], enabled: set[str]) -> None:
    offered = run(actions()["discovery.lua"], obj(**status))
    assert {verb for verb, what in offered.items() if not what["disabled"]} == enabled
    assert set(offered) == {definition["name"] for definition in actions()["definitions"]}


def test_argo_cd_writes_the_annotation() -> None:
    for definition in actions()["definitions"]:
        changed = run(definition["action.lua"], obj())
        value = changed["metadata"]["annotations"][names.ACTION_ANNOTATION]
        assert value.startswith(f"{definition['name']}@")


async def _kubectl(plane: Plane, namespace: str, *arguments: str) -> tuple[int, str]:
    argv = ["--kubeconfig", plane.kubeconfig, "-n", namespace, *arguments]
    process = await asyncio.create_subprocess_exec(
        bin_dir() / "kubectl", *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


@pytest.mark.parametrize("how", [(), ("--server-side",)], ids=["as Argo CD by default", "as Flux"])
async def test_nothing_that_is_written_is_drift(
    plane: Plane, namespace: str, how: tuple[str, ...], tmp_path: Path
) -> None:
    item = yaml.safe_load((EXAMPLES / "adapter-canary.yaml").read_text())
    item["metadata"]["namespace"] = namespace
    file = tmp_path / "adapter.yaml"
    file.write_text(yaml.safe_dump(item))
    assert (await _kubectl(plane, namespace, "apply", *how, "-f", str(file)))[0] == 0
    where = path(names.API_VERSION, names.ADAPTER_PLURAL, namespace, "python")
    await plane.merge(where, {"metadata": {"annotations": {names.ACTION_ANNOTATION: "promote@1"}}})
    meta = {"finalizers": [names.FINALIZER], "annotations": {names.STABLE_ANNOTATION: "python/1.0.0-0123456789ab"}}
    await plane.kube.apply(where, _ours({"metadata": {"name": "python", **meta}}))
    status = {"activeVersion": "1.1.0", "stableVersion": "1.0.0", "conditions": []}
    await plane.kube.apply(f"{where}/status", _ours({"metadata": {"name": "python"}, "status": status}))
    assert await _kubectl(plane, namespace, "diff", *how, "-f", str(file)) == (0, "")


def _ours(body: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": names.API_VERSION, "kind": names.ADAPTER_KIND, **body}
