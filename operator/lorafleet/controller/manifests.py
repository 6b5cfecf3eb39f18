"""The Kubernetes objects of sync work: the Job of a plan, and the CronJob of a fleet's scrub. Pure: dicts out.

A Job gets no Kubernetes permission, mounts the fleet's claim and, read-only, what it reads from, runs as nobody special
with a read-only root file system, and is never retried by Kubernetes: the operator decides what is tried again.
"""

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

from lorafleet.api import names
from lorafleet.controller.jobs import (
    COMPONENT,
    ITEMS_ANNOTATION,
    SECRETS,
    SOURCES,
    TRUST,
    VOLUME,
    Mounts,
    dump_items,
    dump_plan,
)
from lorafleet.controller.objects import Fleet
from lorafleet.controller.settings import Settings
from lorafleet.controller.state import SyncItem
from lorafleet.store.plan import PLAN_ENV, PROGRESS_PORT, SyncPlan

USER = 65532
KEPT_SECONDS = 600
SECRET_MODE = 0o440
"""Readable for the Job's group alone, which is the files' by ``fsGroup``."""
_CRON_NAME = 52
"""A CronJob's Jobs carry its name and eleven characters more in a label of 63."""

Object = dict[str, Any]


def job_name(fleet: str) -> str:
    """A new name for a sync Job of a fleet, within the 63 characters of a label."""
    return f"lorafleet-sync-{fleet[:36]}-{uuid.uuid4().hex[:10]}"


def scrub_name(fleet: str) -> str:
    """The name of a fleet's CronJob."""
    name = f"lorafleet-scrub-{fleet}"
    if len(name) <= _CRON_NAME:
        return name
    return f"{name[: _CRON_NAME - 9]}-{hashlib.sha256(fleet.encode()).hexdigest()[:8]}"


def job(
    fleet: Fleet, name: str, plan: SyncPlan, items: Sequence[SyncItem], mounts: Mounts, settings: Settings
) -> Object:
    """The Job of a plan."""
    body = _job(fleet, plan, items, mounts, settings)
    metadata = {"name": name, "namespace": fleet.namespace, **body["metadata"], "ownerReferences": [_owner(fleet)]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": body["spec"]}


def scrub(fleet: Fleet, schedule: str, plan: SyncPlan, items: Sequence[SyncItem], settings: Settings) -> Object:
    """The CronJob of a fleet's scrub; its Jobs are found by their labels as those that the operator makes."""
    assert fleet.spec
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": scrub_name(fleet.name),
            "namespace": fleet.namespace,
            "labels": labels_of(fleet),
            "ownerReferences": [_owner(fleet)],
        },
        "spec": {
            "schedule": schedule,
            "suspend": fleet.spec.suspend,
            "concurrencyPolicy": "Forbid",
            # One that was missed by so much is left out: the next one will do.
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": _job(fleet, plan, items, Mounts(), settings),
        },
    }


def labels_of(fleet: Fleet) -> dict[str, str]:
    """The labels of all sync work of a fleet."""
    return {
        names.MANAGED_BY_LABEL: "lorafleet",
        names.COMPONENT_LABEL: COMPONENT,
        names.FLEET_LABEL: fleet.name,
    }


def _owner(fleet: Fleet) -> Object:
    return {"apiVersion": names.API_VERSION, "kind": names.FLEET_KIND, "name": fleet.name, "uid": fleet.uid}


def _job(fleet: Fleet, plan: SyncPlan, items: Sequence[SyncItem], mounts: Mounts, settings: Settings) -> Object:
    return {
        "metadata": {"labels": labels_of(fleet), "annotations": {ITEMS_ANNOTATION: dump_items(items)}},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": int(plan.deadline_seconds) + 60,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels_of(fleet)}, "spec": _pod(fleet, plan, mounts, settings)},
        },
    }


def _pod(fleet: Fleet, plan: SyncPlan, mounts: Mounts, settings: Settings) -> Object:
    volumes, places = _volumes(fleet, mounts)
    container = {
        "name": COMPONENT,
        "image": settings.sync_image,
        "imagePullPolicy": settings.sync_pull_policy,
        "args": ["sync"],
        "env": [{"name": PLAN_ENV, "value": _escaped(dump_plan(plan))}],
        "ports": [{"name": "progress", "containerPort": PROGRESS_PORT, "protocol": "TCP"}],
        "volumeMounts": places,
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
    }


def _volumes(fleet: Fleet, mounts: Mounts) -> tuple[list[Object], list[Object]]:
    """The pod's volumes and where its container has them.

    A Secret or ConfigMap that is not there must not keep the pod from starting, because other items need it not: it is
    optional, and the sync process says what is missing.
    """
    assert fleet.spec
    volumes: list[Object] = [
        {"name": "volume", "persistentVolumeClaim": {"claimName": fleet.spec.storage.claim_name}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    places: list[Object] = [{"name": "volume", "mountPath": VOLUME}, {"name": "tmp", "mountPath": "/tmp"}]

    def add(name: str, where: str, **volume: Object) -> None:
        volumes.append({"name": name, **volume})
        places.append({"name": name, "mountPath": where, "readOnly": True})

    for number, claim in enumerate(sorted(mounts.claims)):
        add(f"source-{number}", f"{SOURCES}/{claim}", persistentVolumeClaim={"claimName": claim, "readOnly": True})
    for number, secret in enumerate(sorted(mounts.secrets)):
        source = {"secretName": secret, "optional": True, "defaultMode": SECRET_MODE}
        add(f"secret-{number}", f"{SECRETS}/{secret}", secret=source)
    if mounts.trust is not None:
        add("trust", TRUST, configMap={"name": mounts.trust.name, "optional": True})
    return volumes, places


def claim_of(job: Object) -> str:
    """The claim that a Job has as the fleet's volume."""
    volumes = job["spec"]["template"]["spec"].get("volumes") or ()
    return next((volume["persistentVolumeClaim"]["claimName"] for volume in volumes if volume["name"] == "volume"), "")


def _escaped(value: str) -> str:
    """For Kubernetes, which reads ``$$`` in the value of a variable as ``$``."""
    return value.replace("$", "$$")
