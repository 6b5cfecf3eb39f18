"""What a sync Job and its pod say of themselves: why they do not run, and what came of each item. Pure.

Pods may be lost, killed or cut short at any moment: an item without a word failed with its pod and is tried again,
unless the pod says that there was no time or no room for it.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lorafleet.api.reasons import Reason, reason_of
from lorafleet.controller.state import Result, Scrubbed, SyncItem, Task
from lorafleet.rollout.observed import Failed, Published
from lorafleet.store.plan import ItemResult, SyncReport, VolumeReport

_NO_CLAIM = re.compile(r'persistentvolumeclaim "([^"]+)" not found')


@dataclass(frozen=True)
class Outcome:
    """What a pod that has ended says: the results of items, and what it saw of the volume.

    An item without a result was left for another Job. ``partial``: it had more to say than Kubernetes keeps, and the
    rest did not come from the pod itself.
    """

    results: dict[SyncItem, Result]
    volume: VolumeReport | None = None
    partial: bool = False


def _unscheduled(pod: dict[str, Any]) -> str | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or condition.get("reason") or "no reason given")
    return None


def missing_claim(pod: dict[str, Any], claims: Iterable[str]) -> str | None:
    """Which of these claims does not exist, because of which a pod will never run."""
    found = _NO_CLAIM.findall(_unscheduled(pod) or "")
    return next((claim for claim in claims if claim in found), None)


def pod_note(pod: dict[str, Any]) -> str:
    """Why a pod does not run yet, in Kubernetes' own words; empty when nothing is wrong."""
    unscheduled = _unscheduled(pod)
    if unscheduled is not None:
        return f"sync pod cannot be scheduled: {unscheduled}"
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"sync pod waits: {waiting['reason']}: {waiting.get('message', '')}".strip(": ")
    return ""


def running_at(pod: dict[str, Any]) -> str:
    """The address of a pod that runs; empty when it does not."""
    status = pod.get("status") or {}
    return str(status.get("podIP") or "") if status.get("phase") == "Running" else ""


def pod_outcome(pod: dict[str, Any], items: tuple[SyncItem, ...], whole: bytes = b"") -> Outcome | None:
    """What a sync pod reports; None while it runs.

    ``whole``: what it answered as its whole report, of which its termination message has the sha256.
    """
    if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
        return None
    containers = pod["status"].get("containerStatuses") or [{}]
    ended = (containers[0].get("state") or {}).get("terminated") or {}
    name = pod["metadata"]["name"]
    try:
        report = SyncReport.model_validate_json(ended.get("message") or "")
        if report.full is not None and report.full == hashlib.sha256(whole).hexdigest():
            report = SyncReport.model_validate_json(whole)
    except ValueError:
        found = f"exit code {ended.get('exitCode', 'unknown')}, {ended.get('reason') or 'no reason'}"
        return Outcome(lost(items, f"sync pod {name} ended without a report ({found}); its log says more"))
    if report.error:
        return Outcome(lost(items, f"sync pod {name}: {report.error}"))
    by_number = {result.i: result for result in report.results}
    results: dict[SyncItem, Result] = {}
    for number, item in enumerate(items):
        one = by_number.get(number)
        if one is None and report.left:
            continue
        if one is None:
            results |= lost((item,), f"sync pod {name} did not report on this item")
        else:
            results[item] = _result(item, one, str(ended.get("finishedAt") or ""))
    return Outcome(results, report.volume, partial=report.full is not None)


def _result(item: SyncItem, result: ItemResult, ended: str) -> Result:
    if result.reason is not None:
        reason = reason_of(result.reason, Reason.SYNC_FAILED)
        return Failed(reason, result.message or reason.value, bool(result.retry), pin=result.pin)
    if item.task is Task.REMOVE:
        return None
    if item.task is Task.SCRUB:
        return Scrubbed(result.scrubbed or 0, result.damaged or (), ended)
    return Published(
        id=result.id or 0,
        digest=result.digest or "",
        rank=result.rank or 0,
        target_modules=tuple(result.target_modules or ()),
        size_bytes=result.size_bytes or 0,
        min_engine=result.min_engine,
        pin=result.pin,
        dtype=result.dtype,
        slot_bytes=result.slot_bytes,
        verified_by=result.verified_by,
        notices=tuple(f"{notice.reason}: {notice.message}" for notice in result.notices or ()),
    )


def lost(items: Iterable[SyncItem], message: str) -> dict[SyncItem, Result]:
    """The result of items whose Job ended without one: tried again."""
    return {item: Failed(Reason.SYNC_FAILED, message, True) for item in items}


def job_failure(job: dict[str, Any]) -> str:
    """Why Kubernetes gave a Job up; empty when it did not."""
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "Failed" and condition.get("status") == "True":
            return re.sub(r"\s+", " ", f"{condition.get('reason', '')}: {condition.get('message', '')}")
    return ""
