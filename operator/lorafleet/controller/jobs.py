"""The manifest of a sync Job, and what its pod says in the end. Pure: dicts in, dicts and results out.

A Job gets no Kubernetes permission, mounts the fleet's claim and the claims it reads from, runs as nobody special with
a read-only root file system, and is never retried by Kubernetes: the operator decides what is tried again.
"""

import json
import re
import uuid
from collections.abc import Sequence
from typing import Any

from lorafleet.api import names
from lorafleet.api.adapter import AdapterVersion
from lorafleet.api.reasons import Reason, reason_of
from lorafleet.controller.fleetview import oldest_version, rank_limit
from lorafleet.controller.objects import Fleet
from lorafleet.controller.settings import Settings
from lorafleet.controller.state import FleetState, SyncItem
from lorafleet.rollout.observed import Failed, Published
from lorafleet.rollout.versions import entry_hash
from lorafleet.store.plan import PLAN_ENV, PublishItem, RemoveItem, SyncPlan, SyncReport, VolumeLocation

COMPONENT = "sync"
ITEMS_ANNOTATION = f"{names.GROUP}/items"
SELECTOR = f"{names.MANAGED_BY_LABEL}=lorafleet,{names.COMPONENT_LABEL}={COMPONENT}"
VOLUME = "/volume"
SOURCES = "/sources"
USER = 65532
KEPT_SECONDS = 600


def _entry(state: FleetState, item: SyncItem) -> AdapterVersion | None:
    adapter = state.adapters.get(item.adapter)
    if adapter is None or adapter.uid != item.uid or adapter.spec is None:
        return None
    found = next((entry for entry in adapter.spec.versions if entry.name == item.version), None)
    return found if found is not None and entry_hash(found) == item.entry else None


def plan_for(
    state: FleetState, items: Sequence[SyncItem], settings: Settings
) -> tuple[SyncPlan, tuple[SyncItem, ...], set[str]]:
    """The plan for a Job, the items that are in it in its order, and the claims it reads from."""
    fleet = state.fleet
    assert fleet and fleet.spec
    claims: set[str] = set()
    work: list[PublishItem | RemoveItem] = []
    taken: list[SyncItem] = []
    for item in items:
        if item.served:
            work.append(RemoveItem(served_name=item.served))
            taken.append(item)
            continue
        entry = _entry(state, item)
        if entry is None or entry.source.volume is None:
            continue
        source = entry.source.volume
        claim = source.claim_name
        if claim is not None and claim != fleet.spec.storage.claim_name:
            claims.add(claim)
            root = f"{SOURCES}/{claim}"
        else:
            root = VOLUME
        place = VolumeLocation(root=root, path=source.path)
        work.append(PublishItem(adapter=item.adapter, version=item.version, volume=place, digest=entry.digest))
        taken.append(item)
    plan = SyncPlan(
        root=VOLUME,
        model=fleet.status.engine_model or fleet.spec.base_model.name,
        base_models=fleet.spec.base_model.names,
        max_lora_rank=rank_limit(state),
        engine_version=oldest_version(state),
        min_id=fleet.status.highest_id + 1,
        deadline_seconds=settings.sync_deadline,
        items=tuple(work),
    )
    return plan, tuple(taken), claims


def job_name(fleet: str) -> str:
    """A new name for a sync Job of a fleet, within the 63 characters of a label."""
    return f"lorafleet-sync-{fleet[:36]}-{uuid.uuid4().hex[:10]}"


def manifest(
    fleet: Fleet, name: str, plan: SyncPlan, items: Sequence[SyncItem], claims: set[str], settings: Settings
) -> dict[str, Any]:
    """The Job."""
    assert fleet.spec
    labels = {
        names.MANAGED_BY_LABEL: "lorafleet",
        names.COMPONENT_LABEL: COMPONENT,
        names.FLEET_LABEL: fleet.name,
    }
    mounts: list[dict[str, Any]] = [{"name": "volume", "mountPath": VOLUME}, {"name": "tmp", "mountPath": "/tmp"}]
    volumes: list[dict[str, Any]] = [
        {"name": "volume", "persistentVolumeClaim": {"claimName": fleet.spec.storage.claim_name}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    for number, claim in enumerate(sorted(claims)):
        mounts.append({"name": f"source-{number}", "mountPath": f"{SOURCES}/{claim}", "readOnly": True})
        volumes.append({"name": f"source-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}})
    container = {
        "name": COMPONENT,
        "image": settings.sync_image,
        "imagePullPolicy": settings.sync_pull_policy,
        "args": ["sync"],
        "env": [{"name": PLAN_ENV, "value": _escaped(plan.model_dump_json(by_alias=True, exclude_none=True))}],
        "volumeMounts": mounts,
        "terminationMessagePolicy": "File",
        "resources": {
            "requests": {"cpu": settings.sync_cpu, "memory": settings.sync_memory},
            "limits": {"memory": settings.sync_memory},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": fleet.namespace,
            "labels": labels,
            "annotations": {ITEMS_ANNOTATION: dump_items(items)},
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": names.FLEET_KIND,
                    "name": fleet.name,
                    "uid": fleet.uid,
                }
            ],
        },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(settings.sync_deadline) + 60,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": USER,
                        "runAsGroup": USER,
                        "fsGroup": USER,
                        "fsGroupChangePolicy": "OnRootMismatch",
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }


def _escaped(value: str) -> str:
    """For Kubernetes, which reads ``$$`` in the value of a variable as ``$``."""
    return value.replace("$", "$$")


def dump_items(items: Sequence[SyncItem]) -> str:
    """The items as text for an annotation, so that the next leader knows what a Job is about."""
    return json.dumps(
        [[item.adapter, item.uid, item.version, item.served, item.entry, item.expectations] for item in items]
    )


def read_items(job: dict[str, Any]) -> tuple[SyncItem, ...]:
    """The items of a Job; none when it is not one of ours."""
    text = (job["metadata"].get("annotations") or {}).get(ITEMS_ANNOTATION, "[]")
    try:
        return tuple(SyncItem(*map(str, item)) for item in json.loads(text))
    except (ValueError, TypeError):
        return ()


def pod_note(pod: dict[str, Any]) -> str:
    """Why a pod does not run yet, in Kubernetes' own words; empty when nothing is wrong."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"sync pod cannot be scheduled: {condition.get('message', condition.get('reason', ''))}"
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"sync pod waits: {waiting['reason']}: {waiting.get('message', '')}".strip(": ")
    return ""


def pod_results(pod: dict[str, Any], items: Sequence[SyncItem]) -> dict[SyncItem, Published | Failed | None] | None:
    """What a sync pod reports for each item; None while it runs.

    An item without a report failed with the pod and is tried again.
    """
    if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
        return None
    containers = pod["status"].get("containerStatuses") or [{}]
    ended = (containers[0].get("state") or {}).get("terminated") or {}
    name = pod["metadata"]["name"]
    try:
        report = SyncReport.model_validate_json(ended.get("message") or "")
    except ValueError:
        found = f"exit code {ended.get('exitCode', 'unknown')}, {ended.get('reason') or 'no reason'}"
        return lost(items, f"sync pod {name} ended without a report ({found}); its log says more")
    if report.error:
        return lost(items, f"sync pod {name}: {report.error}")
    results: dict[SyncItem, Published | Failed | None] = {}
    for number, item in enumerate(items):
        result = next((result for result in report.results if result.i == number), None)
        if result is None:
            results |= lost((item,), f"sync pod {name} did not report on this item")
        elif result.reason is not None:
            reason = reason_of(result.reason, Reason.SYNC_FAILED)
            results[item] = Failed(reason, result.message or reason.value, bool(result.retry))
        elif item.served:
            results[item] = None
        else:
            results[item] = Published(
                id=result.id or 0,
                digest=result.digest or "",
                rank=result.rank or 0,
                target_modules=tuple(result.target_modules or ()),
                size_bytes=result.size_bytes or 0,
                min_engine=result.min_engine,
            )
    return results


def lost(items: Sequence[SyncItem], message: str) -> dict[SyncItem, Published | Failed | None]:
    """The result of items whose Job ended without one: tried again."""
    return {item: Failed(Reason.SYNC_FAILED, message, True) for item in items}


def job_failure(job: dict[str, Any]) -> str:
    """Why Kubernetes gave a Job up; empty when it did not."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            return re.sub(r"\s+", " ", f"{condition.get('reason', '')}: {condition.get('message', '')}")
    return ""
