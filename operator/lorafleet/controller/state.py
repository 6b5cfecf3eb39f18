"""What the operator knows of a fleet between reconciles: its adapters, engines and sync Jobs.

All of it can be lost: it is rebuilt from the API server, the engines' listings and finished Jobs. Plain data with the
few rules that keep it consistent; nothing here talks to anyone.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from lorafleet.api.fleet import SpecialistFleetSpec
from lorafleet.api.rollout import Probe
from lorafleet.controller.objects import Adapter, Fleet, Ref
from lorafleet.controller.probing import Probing
from lorafleet.controller.tally import Tally
from lorafleet.engines.diagnosis import Diagnosis
from lorafleet.engines.facts import EngineFacts
from lorafleet.rollout.observed import Failed, Loads, Probed, Published, QueryResult, Refusal
from lorafleet.rollout.wanted import NOTHING, Wanted, ours, wanted
from lorafleet.store.plan import VolumeReport


@dataclass
class Engine:
    """One engine container instance as last seen.

    ``listing`` maps served names to roots and is None until the instance has been asked; ``dirty`` are names to look
    at, in order; ``refused`` are versions that this instance will not load.
    """

    facts: EngineFacts
    listing: dict[str, str] | None = None
    listed_at: float = 0.0
    bases: tuple[tuple[str, str], ...] = ()
    version: str | None = None
    updating: bool | None = None
    diagnoses: tuple[Diagnosis, ...] = ()
    dirty: dict[str, None] = field(default_factory=dict)
    refused: dict[str, Refusal] = field(default_factory=dict)
    failing: bool = False
    loading: bool = False
    """A pass of loads and unloads runs."""
    warm: bool = False
    """It was not started just now, or has answered by the most used adapters since."""
    strays: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Served names by adapter that it listed and no status named, when it was last asked."""

    @property
    def name(self) -> str:
        """The pod's name."""
        return self.facts.name

    @property
    def reachable(self) -> bool:
        """Whether the pod says that requests may be sent to it."""
        facts = self.facts
        return bool(facts.ready and not facts.terminating and facts.pod_ip and facts.port)

    @property
    def usable(self) -> bool:
        """Whether the engine counts: ready, answering, and nothing blocks it."""
        blocked = any(diagnosis.blocking for diagnosis in self.diagnoses)
        return self.reachable and not blocked and not self.failing and self.listing is not None

    def may_read(self, served: str) -> bool:
        """Whether the engine may still read a version's files: it lists it, or runs and never said what it lists.

        One that is not ready counts as well: it may only be slow, and go on where it was.
        """
        if self.listing is None:
            return self.facts.started
        return served in self.listing

    def restarted(self, facts: EngineFacts) -> None:
        """Forgets what a former instance had: the registry of an engine is in its memory."""
        self.facts = facts
        self.listing = None
        self.version = None
        self.updating = None
        self.bases = ()
        self.diagnoses = ()
        self.dirty.clear()
        self.refused.clear()
        self.strays = {}
        self.failing = False
        self.warm = False


@dataclass(frozen=True)
class SyncItem:
    """One thing for a sync Job, by ``task``: publish a version, remove or repair a served name, or scrub.

    ``entry`` is the hash of the version's entry, so that a result never counts for another entry of the same name.
    ``uid`` is the adapter's, or the fleet's for what the fleet itself asked for.
    """

    adapter: str
    uid: str
    version: str = ""
    served: str = ""
    entry: str = ""
    expectations: str = field(default="", compare=False)
    repair: bool = False

    @property
    def task(self) -> "Task":
        """What is to be done."""
        if self.repair:
            return Task.REPAIR
        if self.version:
            return Task.PUBLISH
        return Task.REMOVE if self.served else Task.SCRUB


class Task(StrEnum):
    """What a sync Job does for an item."""

    PUBLISH = "publish"
    REMOVE = "remove"
    REPAIR = "repair"
    SCRUB = "scrub"


@dataclass(frozen=True)
class Scrubbed:
    """What a scrub found: how many versions it read, which of them are damaged, and when it ended if that is known."""

    versions: int
    damaged: tuple[str, ...] = ()
    ended: str = ""


Result = Published | Failed | Scrubbed | None
"""What came of an item; None: a served name was removed."""


@dataclass
class SyncJob:
    """A sync Job that exists in the cluster. ``results`` come once its pod has ended.

    ``claim`` is what it has as the fleet's volume, ``ip`` its pod's while it runs, ``progress`` the bytes fetched of
    those to fetch. ``report`` is what the pod answered as its whole report, which counts for nothing before Kubernetes
    brings its sha256. ``scheduled``: not made by us one by one, but by the fleet's CronJob, so it takes no place of a
    sync Job. ``stuck``: it waits for a claim that does not exist.
    """

    name: str
    items: tuple[SyncItem, ...]
    claim: str = ""
    note: str = ""
    ip: str = ""
    report: bytes = b""
    scheduled: bool = False
    stuck: bool = False
    progress: dict[SyncItem, tuple[int, int | None]] = field(default_factory=dict)
    results: dict[SyncItem, Result] | None = None
    open: set[SyncItem] = field(default_factory=set)


@dataclass
class Sync:
    """What a fleet wants of sync Jobs, and the Jobs there are."""

    requests: dict[str, tuple[SyncItem, ...]] = field(default_factory=dict)
    jobs: dict[str, SyncJob] = field(default_factory=dict)
    refused: dict[SyncItem, Failed] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    asked: dict[str, float] = field(default_factory=dict)
    """Since when the removal of a served name is asked for, on the monotonic clock."""
    terminating: bool = False
    unheard: bool = False
    """A report that was too long for Kubernetes did not come from its pod: Jobs have no more items than always fit."""
    volume: VolumeReport | None = None
    """What the last Job saw of the volume, until it is in the fleet's status."""

    def running(self) -> Iterator[SyncJob]:
        """The Jobs without a result yet."""
        return (job for job in self.jobs.values() if job.results is None)

    def waiting(self) -> list[SyncItem]:
        """What is asked for and not in any Job."""
        taken = {item for job in self.running() for item in job.items} | {
            item for job in self.jobs.values() for item in job.open
        }
        taken |= self.refused.keys()
        return [item for items in self.requests.values() for item in items if item not in taken]


@dataclass
class FleetState:
    """A fleet, whether or not its object exists: adapters may name it before it is there."""

    ref: Ref
    fleet: Fleet | None = None
    adapters: dict[str, Adapter] = field(default_factory=dict)
    engines: dict[str, Engine] = field(default_factory=dict)
    sync: Sync = field(default_factory=Sync)
    discovered: bool = False
    load: dict[str, str] = field(default_factory=dict)
    keep: set[str] = field(default_factory=set)
    carrying: set[str] = field(default_factory=set)
    oldest: dict[str, str] = field(default_factory=dict)
    contributions: dict[str, Wanted] = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    """Served names that wait for a place on the engines, with their adapter."""
    kept: dict[str, str] = field(default_factory=dict)
    """Served names that are loaded only for a rollback at once, with their adapter: they yield to those that wait."""
    places: set[str] = field(default_factory=set)
    """Served names that were given a place and are in no written status yet."""
    asked: tuple[SpecialistFleetSpec | None, str] = (None, "")
    """A spec, and as text what it asks of versions."""
    probes: dict[str, Probing] = field(default_factory=dict)
    """By served name, the probes that adapters asked for, while the version shall be on engines."""
    tally: Tally = field(default_factory=Tally)
    routers: int = 0
    """Routers that answered when they were last asked."""
    asks: dict[str, float] = field(default_factory=dict)
    """Adapters that want statistics, and after how many seconds at the latest."""
    told: dict[str, float] = field(default_factory=dict)
    """When statistics were last put into an adapter's status, on the monotonic clock."""
    queries: dict[str, dict[str, QueryResult]] = field(default_factory=dict)
    """What Prometheus said, by adapter and name of a query."""
    turns: set[str] = field(default_factory=set)
    """Adapters that were given a turn to roll out and whose status does not say so yet."""
    settled_once: bool = False
    """Every engine that mattered was asked since they were discovered."""
    prompt: tuple[float, float] = (0.0, 0.0)
    """How many more prompt writes of the fleet's status may follow, and as of when (monotonic clock)."""
    broken: dict[str, Failed] = field(default_factory=dict)
    """Damaged served names whose repair failed the last time."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from computing a fleet's status to having written it: two reconciles write it."""

    @property
    def gone(self) -> bool:
        """Whether the fleet's object is not there or on its way out."""
        return self.fleet is None or self.fleet.deleting_since is not None

    @property
    def suspended(self) -> bool:
        """Whether the user stopped us from acting."""
        return bool(self.fleet and self.fleet.spec and self.fleet.spec.suspend and not self.gone)

    def contribute(self, name: str, adapter: Adapter | None) -> frozenset[str]:
        """Takes over what an adapter wants; the served names for which that has changed."""
        before = self.contributions.get(name, NOTHING)
        after = NOTHING
        if adapter is not None and not self.gone and self.fleet and self.fleet.spec:
            after = wanted(adapter.status, self.fleet.spec.storage.mount_path)
        if after == before:
            return frozenset()
        for served in before.names:
            self.load.pop(served, None)
            self.oldest.pop(served, None)
        for served in before.waits:
            self.waiting.pop(served, None)
        self.waiting.update(dict.fromkeys(after.waits, name))
        self._keep(name, adapter, before, after)
        self.keep -= before.keep
        self.carrying -= before.carrying
        self.load.update(after.load)
        self.oldest.update(after.oldest)
        self.keep |= after.keep
        self.carrying |= after.carrying
        if after is NOTHING or not (after.names or after.waits):
            self.contributions.pop(name, None)
        else:
            self.contributions[name] = after
        changed = {served for served in before.names | after.names if before.load.get(served) != after.load.get(served)}
        for served in changed - after.load.keys() if self.probes else ():
            self.probes.pop(served, None)
        return frozenset(changed | (before.keep ^ after.keep))

    def _keep(self, name: str, adapter: Adapter | None, before: Wanted, after: Wanted) -> None:
        for served in before.load if self.kept else ():
            self.kept.pop(served, None)
        for version in adapter.status.versions if adapter is not None else ():
            if version.kept and version.served_name and version.served_name in after.load:
                self.kept[version.served_name] = name

    @property
    def damaged(self) -> frozenset[str]:
        """Served names whose files on the volume are not what was published."""
        storage = self.fleet.status.storage if self.fleet else None
        return frozenset(one.served_name for one in storage.damaged) if storage else frozenset()

    @property
    def settled(self) -> bool:
        """Whether every engine that may matter has been asked once: what is unknown is not taken for down.

        An engine that comes later holds nothing up: until it has answered it does not count.
        """
        if self.discovered and self.settled_once:
            return True
        self.settled_once = self.discovered and all(
            engine.listing is not None or engine.failing or engine.diagnoses or not engine.reachable
            for engine in self.engines.values()
        )
        return self.settled_once

    def usable_engines(self) -> int:
        """How many engines count."""
        return sum(engine.usable for engine in self.engines.values())

    def probed(self, served: set[str], probe: Probe) -> dict[str, Probed]:
        """What engines answered to this very probe by these names."""
        asked = served & self.probes.keys() if self.probes else ()
        found = {name: self.probes[name] for name in asked}
        return {name: one.probed(self.engines.values()) for name, one in found.items() if one.probe == probe}

    def loads(self, served: str) -> Loads:
        """Where a version is."""
        if not self.discovered:
            return Loads(readers=("engines that are not discovered yet",))
        loaded = 0
        readers = []
        refusals = []
        for engine in self.engines.values():
            if engine.may_read(served):
                readers.append(engine.name)
            if engine.usable:
                root = engine.listing.get(served) if engine.listing else None
                loaded += root is not None and (root == self.load.get(served) or ours(served, root))
                if served in engine.refused:
                    refusals.append(engine.refused[served])
        return Loads(loaded, tuple(readers), tuple(refusals))

    def trouble(self) -> str:
        """In a sentence, why no engine is usable; empty when one is, or when nothing is known."""
        if not self.discovered:
            return "engines are being discovered"
        if not self.engines:
            return "no pod matches the fleet's spec.engines.selector: start engines with these labels"
        for engine in self.engines.values():
            for diagnosis in engine.diagnoses:
                if diagnosis.blocking:
                    return diagnosis.message
        waiting = [engine.name for engine in self.engines.values() if not engine.reachable]
        return f"engine {waiting[0]} is not ready" if waiting else ""
