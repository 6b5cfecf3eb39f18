"""Objects on a real API server whose statuses a test writes, and an operator's stand-in that answers the verbs."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import yaml

from lorafleet.api.names import ACTION_ANNOTATION, ADAPTER_PLURAL, API_VERSION, FLEET_PLURAL
from lorafleet.kube import path
from lorafleet.watch import informer
from tests.cli.objects import live
from tests.harness.plane import Plane

PLURALS = {"LoRAAdapter": ADAPTER_PLURAL, "SpecialistFleet": FLEET_PLURAL}


async def put(plane: Plane, namespace: str, item: dict[str, Any], name: str | None = None) -> None:
    """Creates an object with its status."""
    made = live(item, namespace, name)
    plural = PLURALS[made["kind"]]
    await plane.kube.create(path(API_VERSION, plural, namespace), made)
    await write(plane, namespace, made)


async def write(plane: Plane, namespace: str, made: dict[str, Any]) -> None:
    """Writes the status of an object that is there."""
    where = path(API_VERSION, PLURALS[made["kind"]], namespace, made["metadata"]["name"], "status")
    now = await plane.kube.get(where)
    await plane.kube.replace(where, now | {"status": made["status"]})


@contextlib.asynccontextmanager
async def operator(plane: Plane, namespace: str, answer: Callable[[str, str], str]) -> AsyncIterator[None]:
    """While the block runs, each action on an adapter is handled once; ``answer`` says what came of it."""

    async def run() -> None:
        async for _, item in informer(plane.kube, path(API_VERSION, ADAPTER_PLURAL, namespace), ""):
            if item is None:
                continue
            name = item["metadata"]["name"]
            action = (item["metadata"].get("annotations") or {}).get(ACTION_ANNOTATION)
            if action and action != item.get("status", {}).get("lastHandledAction"):
                told = {"lastHandledAction": action, "actionMessage": answer(name, action.rpartition("@")[0])}
                await plane.merge(path(API_VERSION, ADAPTER_PLURAL, namespace, name, "status"), {"status": told})

    task = asyncio.create_task(run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def kubeconfig(plane: Plane, folder: Path, namespace: str | None = None, **user: Any) -> str:
    """A kubeconfig for the control plane, with this namespace in its context, and perhaps another user."""
    body = yaml.safe_load(Path(plane.kubeconfig).read_text())
    if namespace is not None:
        for entry in body["contexts"]:
            entry["context"]["namespace"] = namespace
    if user:
        for entry in body["users"]:
            entry["user"] = user
    file = folder / "kubeconfig"
    file.write_text(json.dumps(body))
    return str(file)
