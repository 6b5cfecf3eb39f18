"""The sync Jobs of a fleet: few at once, several versions each, taking turns between adapters.

Results go to memory and stay with their Job until they are in a written status; only then is the Job deleted. What a
Job had no time for goes into another. A leader
that takes over finds the Jobs and their pods in the cluster and goes on. Versions that need different claims go into
different Jobs, because a pod whose claim does not exist never runs.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from time import monotonic

from lorafleet.api.names import FLEET_LABEL
from lorafleet.api.reasons import Reason
from lorafleet.controller import jobs, manifests, reports
from lorafleet.controller.metrics import SYNC_JOBS
from lorafleet.controller.queue import Key, Retry
from lorafleet.controller.reports import Outcome
from lorafleet.controller.settings import Settings
from lorafleet.controller.sharing import may_come_back, on_claim
from lorafleet.controller.state import FleetState, Result, SyncItem, SyncJob, Task
from lorafleet.controller.world import World
from lorafleet.kube import Kube, KubeError, Object, path
from lorafleet.rollout.observed import Failed
from lorafleet.store.plan import MAX_ITEMS, PROGRESS_PORT
from lorafleet.store.termination import SURE_ITEMS
from lorafleet.watch import informer

log = logging.getLogger(__name__)

FRESH = 0.3
"""Seconds between looks while engines are asked what they list."""
JOB_LABEL = "batch.kubernetes.io/job-name"
GRACE = 5.0
"""Seconds that a Job which Kubernetes gave up waits for its pod's own words."""
CLAIM_GRACE = 30.0
"""Seconds that a Job waits for a claim that does not exist."""


class SyncReconciler:
    """Creates and deletes the sync Jobs of one fleet a call."""

    def __init__(self, world: World, kube: Kube, settings: Settings) -> None:
        self._world = world
        self._kube = kube
        self._settings = settings
        self._ready: set[str] = set()
        self._early: dict[tuple[str, str], Object] = {}

    @property
    def ready(self) -> bool:
        """Whether the Jobs and pods that a former leader left are known."""
        return {"jobs", "pods"} <= self._ready

    async def __call__(self, key: Key) -> float | None:
        """One reconcile; the answer is when to look again."""
        state = self._world.fleets.get((key.namespace, key.name))
        if state is None:
            return None
        if not self.ready:
            return 0.1
        if state.fleet is None:
            # Nobody is left to take the results; what was published goes with the claim.
            for job in state.sync.jobs.values():
                job.open.clear()
        for job in [job for job in state.sync.jobs.values() if job.results is not None and not job.open]:
            await self._done(state, job)
        if state.fleet is None or state.fleet.spec is None or state.suspended:
            return None
        limit = self._settings.sync_jobs_per_fleet
        running = [job for job in state.sync.running() if not job.scheduled]
        # One that waits for a claim does nothing; but there are not to be any number of them.
        free = limit - len(running) + min(sum(job.stuck for job in running), limit)
        waiting, again = self._ready_items(state, state.sync.waiting())
        while waiting and free > 0:
            batch = batch_of(state, waiting, free)
            waiting = [item for item in waiting if item not in batch]
            free -= await self._create(state, batch)
        return again

    def _ready_items(self, state: FleetState, waiting: list[SyncItem]) -> tuple[list[SyncItem], float | None]:
        """What may start now, and when to look again.

        A removal needs a listing of each engine from after it was asked for: a client may have had a version loaded by
        vLLM's resolver meanwhile. A version is not published while a Job may be removing a former one of its name, and
        what the fleet wants removed stays if an adapter came back for it meanwhile.
        """
        removals = [item for item in waiting if item.task is Task.REMOVE]
        asked = {item.served: state.sync.asked.get(item.served, monotonic()) for item in removals}
        state.sync.asked = asked
        sharing = on_claim(self._world.fleets.values(), state.ref)
        items = [item for job in state.sync.running() for item in job.items]
        going = {item.served.rpartition("-")[0] for item in items if item.task is Task.REMOVE}
        start = []
        again = None
        for item in waiting:
            if item.task is not Task.REMOVE:
                if f"{item.adapter}/{item.version}" not in going:
                    start.append(item)
            elif not item.adapter and may_come_back(sharing, item.served):
                continue
            elif self._may_be_read(sharing, item.served, asked[item.served]):
                again = FRESH
            else:
                start.append(item)
        return start, again

    def _may_be_read(self, sharing: list[FleetState], served: str, asked: float) -> bool:
        """Whether an engine may still read a version's files; those that were not asked since are asked."""
        engines = [(one, engine) for one in sharing for engine in one.engines.values()]
        stale = [(one, engine) for one, engine in engines if engine.usable and engine.listed_at <= asked]
        for one, engine in stale:
            engine.listed_at = 0.0
            self._world.ask_engine(one, engine.name)
        return bool(stale) or any(one.loads(served).readers for one in sharing)

    async def _create(self, state: FleetState, batch: list[SyncItem]) -> bool:
        assert state.fleet
        plan, items, mounts = jobs.plan_for(state, batch, self._settings, self._world.known_names(state.ref[0]))
        if not items:
            return False
        name = manifests.job_name(state.ref[1])
        body = manifests.job(state.fleet, name, plan, items, mounts, self._settings)
        state.sync.jobs[name] = SyncJob(name, items, manifests.claim_of(body), open=set(items))
        try:
            await self._kube.create(path("batch/v1", "jobs", state.ref[0]), body)
        except BaseException as error:
            del state.sync.jobs[name]
            if not isinstance(error, KubeError):
                raise
            if error.namespace_terminating:
                state.sync.terminating = True
                self._world.ask_adapters(state)
                self._world.ask_fleet(state, 0.0)
                return False
            if error.unreachable or error.status >= 500 or error.status == 429:
                raise Retry(f"sync job not created: {error}") from error
            failure = Failed(Reason.SYNC_FAILED, f"the sync Job was refused: {error.message}", True)
            state.sync.refused.update(dict.fromkeys(items, failure))
            self._ask(state, items)
            return False
        SYNC_JOBS.labels(*state.ref, "created").inc()
        log.info(
            "sync job created",
            extra={"namespace": state.ref[0], "fleet": state.ref[1], "job": name, "items": len(items)},
        )
        self._ask(state, items)
        return True

    async def _done(self, state: FleetState, job: SyncJob) -> None:
        """A Job whose results are in a status goes; one of a CronJob stays for its time: a person may wait for it."""
        try:
            if not job.scheduled:
                where = path("batch/v1", "jobs", state.ref[0], job.name)
                await self._kube.delete(where, propagationPolicy="Background")
        except KubeError as error:
            raise Retry(f"sync job {job.name} not deleted: {error}") from error
        state.sync.jobs.pop(job.name, None)
        state.sync.deleted.add(job.name)

    def _ask(self, state: FleetState, items: tuple[SyncItem, ...]) -> None:
        for item in items:
            if item.adapter in state.adapters:
                self._world.ask_served(state, item.adapter, 0.0)
        if any(item.adapter not in state.adapters or item.task is not Task.REMOVE for item in items):
            self._world.ask_fleet(state)

    # What the watches of Jobs and pods report.

    async def follow(self, what: str, namespace: str | None) -> None:
        """Follows the Jobs (``jobs``) or the pods (``pods``) of all sync work, for ever."""
        where = path("batch/v1" if what == "jobs" else "v1", what, namespace)
        report: Callable[[FleetState, str, Object], None] = self._job if what == "jobs" else self._pod
        async for kind, item in informer(self._kube, where, jobs.SELECTOR):
            if item is None:
                self._ready.add(what)
                continue
            labels = item["metadata"].get("labels") or {}
            state = self._world.state((item["metadata"]["namespace"], labels.get(FLEET_LABEL, "")))
            try:
                report(state, kind, item)
            except Exception:
                # Whoever may create Jobs may write odd ones: they must not end the watch of the others.
                log.exception("not a sync Job of ours", extra={"namespace": state.ref[0], "fleet": state.ref[1]})

    def _job(self, state: FleetState, kind: str, job: Object) -> None:
        name = job["metadata"]["name"]
        if name in state.sync.deleted:
            if kind == "DELETED":
                state.sync.deleted.discard(name)
            return
        known = state.sync.jobs.get(name)
        if kind == "DELETED":
            if known is not None and known.results is None:
                self._finish(state, known, reports.lost(known.items, f"sync job {name} was deleted"), "lost")
            elif known is not None:
                state.sync.jobs.pop(name, None)
            return
        if known is None:
            items = jobs.read_items(job)
            scheduled = _by_the_scrub(state, job, items)
            owners = {owner.get("uid") for owner in job["metadata"].get("ownerReferences") or ()}
            ours = state.fleet is not None and (state.fleet.uid in owners or scheduled)
            if job["metadata"].get("deletionTimestamp") or not ours:
                return
            claim = manifests.claim_of(job)
            known = state.sync.jobs[name] = SyncJob(name, items, claim, open=set(items), scheduled=scheduled)
            self._ask(state, items)
            early = self._early.pop((state.ref[0], name), None)
            if early is not None:
                self._pod(state, "ADDED", early)
        failure = reports.job_failure(job)
        if failure and known.results is None:
            lost = reports.lost(known.items, f"sync job {name} failed: {failure}")
            asyncio.get_running_loop().call_later(GRACE, self._finish, state, known, lost, "failed")

    def _pod(self, state: FleetState, kind: str, pod: Object) -> None:
        name = (pod["metadata"].get("labels") or {}).get(JOB_LABEL, "")
        known = state.sync.jobs.get(name)
        if known is None:
            if kind != "DELETED":
                self._early[state.ref[0], name] = pod
            else:
                self._early.pop((state.ref[0], name), None)
            return
        if known.results is not None:
            return
        known.ip = reports.running_at(pod)
        outcome = reports.pod_outcome(pod, known.items, known.report)
        if outcome is not None:
            self._take(state, outcome)
            self._finish(state, known, outcome.results, "done")
            return
        if kind == "DELETED":
            self._finish(state, known, reports.lost(known.items, "the sync pod was deleted"), "lost")
            return
        claim = reports.missing_claim(pod, self._claims(state, known))
        if claim and not known.stuck:
            asyncio.get_running_loop().call_later(CLAIM_GRACE, self._give_up, state, known, claim)
            self._world.ask_sync(state)
        known.stuck = claim is not None
        if (note := reports.pod_note(pod)) != known.note:
            known.note = note
            self._ask(state, known.items)

    def _claims(self, state: FleetState, job: SyncJob) -> frozenset[str]:
        """The claims of others that a Job needs."""
        if state.fleet is None or state.fleet.spec is None:
            return frozenset()
        return frozenset().union(*(jobs.claims_of(state, item) for item in job.items))

    def _give_up(self, state: FleetState, job: SyncJob, claim: str) -> None:
        """Ends a Job that has waited long enough for a claim: its versions are tried again, with backoff."""
        if not job.stuck or job.results is not None:
            return
        text = f"claim {claim} does not exist in namespace {state.ref[0]}: create it, or correct whatever names it"
        failure = Failed(Reason.SOURCE_NOT_FOUND, text, True)
        self._finish(state, job, dict.fromkeys(job.items, failure), "lost")

    def _take(self, state: FleetState, outcome: Outcome) -> None:
        """Keeps what a Job saw of the volume for the fleet's status, and whether its pod could be asked."""
        if outcome.partial and not state.sync.unheard:
            state.sync.unheard = True
            log.warning(
                "the report of a sync pod did not come; its Jobs are small from now on: let the operator connect to"
                " sync pods",
                extra={"namespace": state.ref[0], "fleet": state.ref[1], "port": PROGRESS_PORT},
            )
        if outcome.volume is not None:
            state.sync.volume = outcome.volume
            self._world.ask_fleet(state)

    def _finish(
        self,
        state: FleetState,
        job: SyncJob,
        results: Mapping[SyncItem, Result],
        result: str,
    ) -> None:
        if job.results is not None:
            return
        job.results = dict(results)
        # What was left for another Job is asked for as before.
        job.open &= results.keys()
        job.ip, job.report, job.stuck = "", b"", False
        job.progress.clear()
        SYNC_JOBS.labels(*state.ref, result).inc()
        for item, outcome in results.items():
            about = {"namespace": state.ref[0], "fleet": state.ref[1], "job": job.name, "adapter": item.adapter}
            about |= {"version": item.version, "servedName": item.served, "task": item.task.value}
            if isinstance(outcome, Failed):
                log.warning("sync failed", extra=about | {"reason": outcome.reason, "error": outcome.message})
            else:
                log.info("synced", extra=about)
        self._ask(state, job.items)
        self._world.ask_sync(state)


def _by_the_scrub(state: FleetState, job: Object, items: tuple[SyncItem, ...]) -> bool:
    """Whether a Job is of the fleet's CronJob: made by its schedule, or by a person from it."""
    if state.fleet is None or any(item.task is not Task.SCRUB or item.uid != state.fleet.uid for item in items):
        return False
    owners = job["metadata"].get("ownerReferences") or ()
    name = manifests.scrub_name(state.fleet.name)
    return any(owner.get("kind") == "CronJob" and owner.get("name") == name for owner in owners)


def batch_of(state: FleetState, waiting: list[SyncItem], free: int) -> list[SyncItem]:
    """The items of the next Job: by turns, only such as need the same claims as the first, and as many as fit.

    Of many each Job of the ``free`` ones that may be made gets its share.
    """
    turns = _take_turns(waiting)
    claims = jobs.claims_of(state, turns[0])
    largest = SURE_ITEMS if state.sync.unheard else MAX_ITEMS
    most = min(largest, max(SURE_ITEMS, math.ceil(len(waiting) / free)))
    batch: list[SyncItem] = []
    room = jobs.Room()
    for item in turns:
        if jobs.claims_of(state, item) != claims:
            continue
        if len(batch) == most or not (room.take(state, item) or not batch):
            break
        batch.append(item)
    return batch


def _take_turns(items: list[SyncItem]) -> list[SyncItem]:
    """One item of each adapter, then the second of each, and so on."""
    turn: dict[str, int] = {}
    ranked = []
    for item in items:
        turn[item.adapter] = turn.get(item.adapter, 0) + 1
        ranked.append((turn[item.adapter], item))
    ranked.sort(key=lambda pair: pair[0])
    return [item for _, item in ranked]
