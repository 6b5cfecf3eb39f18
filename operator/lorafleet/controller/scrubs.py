"""The CronJob that reads a fleet's published files again: applied when the fleet asks for it, deleted when not.

Kubernetes starts its Jobs; the watch of sync Jobs finds them by their labels. Applied again now and then, should
somebody have changed or deleted it.
"""

import json
import logging
from dataclasses import dataclass
from time import monotonic

from lorafleet.api.reasons import Reason
from lorafleet.controller import jobs, manifests
from lorafleet.controller.objects import Ref
from lorafleet.controller.settings import Settings
from lorafleet.controller.state import FleetState, SyncItem
from lorafleet.kube import Kube, KubeError, path
from lorafleet.store.plan import SyncPlan

log = logging.getLogger(__name__)

AGAIN = 600.0
"""Seconds after which what was applied is applied again, if the fleet is looked at."""
REFUSED_AGAIN = 60.0
"""Seconds after which what was refused is tried again."""


@dataclass(frozen=True)
class Refused:
    """The API server did not take a CronJob."""

    reason: Reason
    message: str


class Scrubs:
    """Keeps the CronJobs of all fleets; remembers what it applied."""

    def __init__(self, kube: Kube, settings: Settings) -> None:
        self._kube = kube
        self._settings = settings
        self._tried: dict[Ref, tuple[str, float]] = {}
        self._refused: dict[Ref, Refused] = {}

    def trouble(self, ref: Ref) -> Refused | None:
        """Why a fleet is not scrubbed though its spec asks for it; None when nothing is wrong."""
        return self._refused.get(ref)

    def forget(self, ref: Ref) -> None:
        """A fleet is gone, and its CronJob with it: Kubernetes deletes what the fleet owns."""
        self._tried.pop(ref, None)
        self._refused.pop(ref, None)

    async def keep(self, state: FleetState) -> None:
        """Makes the CronJob what the fleet's spec asks for; a failure is remembered and never stops the fleet."""
        fleet = state.fleet
        if fleet is None or fleet.spec is None:
            return
        where = path("batch/v1", "cronjobs", state.ref[0], manifests.scrub_name(fleet.name))
        asked = fleet.spec.storage.scrub
        body: manifests.Object | None = None
        if asked is not None:
            item = SyncItem("", fleet.uid)
            plan, items, _ = jobs.plan_for(state, [item], self._settings)
            # The template lives long: only what a scrub needs, so that it does not change with every version.
            plan = SyncPlan(
                root=plan.root,
                model=plan.model,
                base_models=plan.base_models,
                deadline_seconds=plan.deadline_seconds,
                items=plan.items,
            )
            body = manifests.scrub(fleet, asked.schedule, plan, items, self._settings)
        mark = json.dumps([fleet.uid, body], sort_keys=True)
        known, at = self._tried.get(state.ref, ("", 0.0))
        if mark == known and monotonic() - at < (REFUSED_AGAIN if state.ref in self._refused else AGAIN):
            return
        self._tried[state.ref] = (mark, monotonic())
        try:
            if body is not None:
                await self._kube.apply(where, body)
            elif mark != known or state.ref in self._refused:
                await self._kube.delete(where, propagationPolicy="Background")
        except KubeError as error:
            about = {"namespace": state.ref[0], "fleet": state.ref[1], "error": str(error)}
            log.warning("the CronJob of the scrub is not as it should be", extra=about)
            reason = Reason.INVALID_SPEC if error.status == 422 else Reason.SYNC_FAILED
            text = f"spec.storage.scrub is not in effect: the API server says: {error.message}"
            self._refused[state.ref] = Refused(reason, text)
            return
        self._refused.pop(state.ref, None)
