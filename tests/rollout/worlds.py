"""Small worlds for tests of decisions: an adapter, a fleet, and a simulated cluster that does what a plan says."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from lorafleet.api.adapter import LoRAAdapterSpec, LoRAAdapterStatus, VersionStatus
from lorafleet.api.model import timestamp
from lorafleet.api.reasons import Reason
from lorafleet.api.rolloutstatus import RolloutStatus
from lorafleet.rollout.decide import decide
from lorafleet.rollout.evidence import Counts, Record
from lorafleet.rollout.observed import (
    Failed,
    FleetView,
    Loads,
    Observed,
    Plan,
    Probed,
    Published,
    QueryResult,
    Refusal,
    Syncing,
)
from lorafleet.rollout.room import Room
from lorafleet.rollout.wanted import Action, action, wanted

START = datetime(2026, 1, 1, tzinfo=UTC)
MOUNT = "/adapters"


SOURCES = {
    "volume": {"volume": {"path": "incoming/x"}},
    "oci": {"oci": {"reference": "registry/x:1"}},
    "huggingFace": {"huggingFace": {"repo": "acme/x"}},
    "objectStore": {"objectStore": {"url": "s3://bucket/x/"}},
    "http": {"http": {"url": "https://host/x.tar", "sha256": "0" * 64}},
}


def spec(*names: str, active: str | None = None, scheme: str = "volume", **more: object) -> LoRAAdapterSpec:
    """An adapter's spec with these versions."""
    source = SOURCES[scheme]
    body = {"fleet": "fleet", "versions": [{"name": name, "source": source} for name in names], **more}
    if active is not None:
        body["activeVersion"] = active
    return LoRAAdapterSpec.model_validate(body)


def fleet_view(**changes: object) -> FleetView:
    """A healthy fleet with two usable engines."""
    view = FleetView(
        name="fleet",
        claim_name="claim",
        mount_path=MOUNT,
        drain_seconds=30.0,
        deletion_seconds=600.0,
        ready_to_publish=True,
        usable_engines=2,
        expectations="e1",
    )
    return replace(view, **changes)  # type: ignore[arg-type]


def digest_of(version: str) -> str:
    """A digest that differs by version."""
    return "sha256:" + (version.encode().hex() + "0" * 64)[:64]


@dataclass
class Cluster:
    """What a plan acts on: a volume, engines with what they list, a clock."""

    spec: LoRAAdapterSpec
    fleet: FleetView | None = field(default_factory=fleet_view)
    engines: dict[str, dict[str, str]] = field(default_factory=lambda: {"e0": {}, "e1": {}})
    down: set[str] = field(default_factory=set)
    status: LoRAAdapterStatus = field(default_factory=LoRAAdapterStatus)
    now: datetime = START
    generation: int = 1
    deleting_since: datetime | None = None
    volume: set[str] = field(default_factory=set)
    bad: dict[str, Failed] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)
    published: dict[str, Published | Failed] = field(default_factory=dict)
    removed: dict[str, Failed | None] = field(default_factory=dict)
    last: Plan | None = None
    ids: int = 0
    released: bool = False
    name: str = "adapter"
    room: Room | None = None
    damage: dict[str, str] = field(default_factory=dict)
    syncing: dict[str, Syncing] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    """Of versions whose source has other bytes than at first."""
    action: str = ""
    noted: str = ""
    """The stable version's served name, in the metadata."""
    proven: set[str] = field(default_factory=set)
    """All that were stable otherwise than by a lost status that was made anew."""
    turn: str = ""
    mute: set[str] = field(default_factory=set)
    """Versions that no engine has answered for yet."""
    wrong: dict[str, bool] = field(default_factory=dict)
    """Versions that an engine answers wrongly for, and whether for good."""
    routers: int = 1
    counts: dict[str, Counts] = field(default_factory=dict)
    moments: dict[str, list[tuple[datetime, Counts]]] = field(default_factory=dict)
    values: dict[str, QueryResult] = field(default_factory=dict)

    def usable(self) -> list[str]:
        """The engines that count."""
        return [name for name in self.engines if name not in self.down]

    def loads(self, served: str) -> Loads:
        """Where a version is."""
        loaded = sum(served in self.engines[name] for name in self.usable())
        readers = tuple(name for name, listing in self.engines.items() if served in listing)
        refusals = tuple(
            Refusal(name, Reason.LOAD_REJECTED, "rank too high") for name in self.usable() if served in self.refuses
        )
        return Loads(loaded, readers, refusals)

    def probed(self, served: str) -> Probed:
        """What engines answered that have a version."""
        version = served.partition("/")[2].rpartition("-")[0]
        if version in self.wrong:
            return Probed(0, (Refusal("e0", Reason.PROBE_FAILED, "said tabs", final=self.wrong[version]),))
        return Probed(0 if version in self.mute else self.loads(served).loaded)

    def requests(self, version: str, ok: int = 0, errors: int = 0, refused: int = 0, ms: float = 100.0) -> None:
        """Clients ask, and routers count."""
        served = f"{self.name}/{version}-{digest_of(version)[7:19]}"
        more = Counts(ok + errors + refused, errors, refused, ok, ok * ms)
        self.counts[served] = self.counts.get(served, Counts()) + more

    def look_at_routers(self) -> None:
        """The sums are noted."""
        for served, counts in self.counts.items():
            self.moments.setdefault(served, [(START, Counts())]).append((self.now, counts))

    def observe(self) -> Observed:
        """Everything a decision is made from."""
        if self.routers:
            self.look_at_routers()
        names = {version.served_name for version in self.status.versions if version.served_name}
        fleet = self.fleet and replace(self.fleet, usable_engines=len(self.usable()))
        return Observed(
            name=self.name,
            generation=self.generation,
            now=self.now,
            spec=self.spec,
            status=self.status,
            deleting_since=self.deleting_since,
            fleet=fleet,
            loads={name: self.loads(name) for name in names},
            published=dict(self.published),
            removed=dict(self.removed),
            room=self.room,
            damage=dict(self.damage),
            syncing=dict(self.syncing),
            namespace="tenant",
            action=self.action,
            turn=self.turn,
            probes={name: self.probed(name) for name in names},
            statistics={name: Record(tuple(moments)) for name, moments in self.moments.items()},
            routers=self.routers,
            queries=dict(self.values),
            listed=self.listed(),
            noted=self.noted,
        )

    def listed(self) -> dict[str, int]:
        """Served names of this adapter on usable engines, and on how many."""
        found: dict[str, int] = {}
        for name in self.usable():
            for served in self.engines[name]:
                found[served] = found.get(served, 0) + served.startswith(f"{self.name}/")
        return found

    def act(self, action: str) -> str:
        """A person annotates the adapter; what comes of it, in words."""
        self.action = f"{action}@{timestamp(self.now)}"
        self.reconcile()
        return self.status.action_message or ""

    def reconcile(self) -> Plan:
        """One decision, written."""
        plan = decide(self.observe())
        lost = not self.status.versions and not self.status.stable_version
        self.status = plan.status
        stable = next((one for one in plan.status.versions if one.name == plan.status.stable_version), None)
        self.noted = (stable and stable.served_name) or self.noted
        self.proven |= set() if lost else {self.noted}
        self.published.clear()
        self.removed.clear()
        self.last = plan
        self.released = self.released or plan.release
        return plan

    def sync(self) -> None:
        """The sync Job does what the last plan asked for."""
        assert self.last is not None
        for version in self.last.publish:
            if version in self.bad:
                self.published[version] = self.bad[version]
                continue
            self.ids += 1
            digest = self.digests.get(version, digest_of(version))
            self.volume.add(f"{self.name}/{version}-{digest[7:19]}")
            self.published[version] = Published(self.ids, digest, 8, ("q_proj",), 100, pin=self.pins.get(version))
        for served in self.last.remove:
            readers = [name for name, listing in self.engines.items() if served in listing]
            assert not readers, f"{served} removed while {readers} may read it"
            self.volume.discard(served)
            self.removed[served] = None

    def load(self, only: str | None = None) -> None:
        """The engines do what the statuses want."""
        want = wanted(self.status, MOUNT)
        for name in self.usable():
            if only is not None and name != only:
                continue
            listing = self.engines[name]
            for served in sorted(want.names | listing.keys()):
                path = want.load.get(served)
                todo = action(served, path, served in want.keep, listing.get(served))
                if todo in (Action.UNLOAD, Action.REPLACE):
                    del listing[served]
                if todo in (Action.LOAD, Action.REPLACE) and served not in self.refuses:
                    assert path is not None
                    assert served in self.volume, f"{served} is not published"
                    listing[served] = path

    def settle(self, rounds: int = 8) -> Plan:
        """Reconciles, syncs and loads until nothing more happens by itself."""
        for _ in range(rounds):
            self.reconcile()
            self.sync()
            self.load()
        return self.reconcile()

    def wait(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += timedelta(seconds=seconds)

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition."""
        found = next(condition for condition in self.status.conditions if condition.type == kind)
        return found.status, found.reason

    def message(self, kind: str = "Ready") -> str:
        """What a condition says."""
        return next(condition.message for condition in self.status.conditions if condition.type == kind)

    def version(self, name: str) -> VersionStatus:
        """The status of a version."""
        return next(version for version in self.status.versions if version.name == name)

    @property
    def rollout(self) -> RolloutStatus:
        """The rollout that there is."""
        assert self.status.rollout is not None
        return self.status.rollout

    def history(self) -> list[tuple[str, str]]:
        """What happened, and to which version."""
        return [(entry.what, entry.version) for entry in self.status.history]

    def phase(self, version: str) -> str | None:
        """The phase of a version."""
        return next((str(v.phase) for v in self.status.versions if v.name == version), None)

    def serving(self) -> dict[str, int]:
        """The weights."""
        return {target.version: target.weight for target in self.status.traffic}
