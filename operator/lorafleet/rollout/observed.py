"""What a decision about an adapter is made from, and what it says. Frozen data only.

Whoever gathers it does all the reading first; the time of the decision is a field.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lorafleet.api.adapter import LoRAAdapterSpec, LoRAAdapterStatus
from lorafleet.api.reasons import Reason
from lorafleet.rollout.evidence import Record
from lorafleet.rollout.room import Room


@dataclass(frozen=True)
class Published:
    """A version is on the volume, complete and checked."""

    id: int
    digest: str
    rank: int
    target_modules: tuple[str, ...]
    size_bytes: int
    min_engine: str | None = None
    pin: str | None = None
    dtype: str | None = None
    slot_bytes: int | None = None
    verified_by: str | None = None
    notices: tuple[str, ...] = ()
    """A reason and a message each, as ``Reason: message``."""


@dataclass(frozen=True)
class Failed:
    """A version could not be published, or not removed. ``retry``: it may pass without anyone's doing."""

    reason: Reason
    message: str
    retry: bool
    expectations: str = ""
    """What it was checked against, when that was written down."""
    pin: str | None = None
    """What a moving name stood for; known once the source was asked, whatever came of it."""


@dataclass(frozen=True)
class Syncing:
    """A version that a sync Job works on: why its pod does not run, and the bytes fetched of those to fetch."""

    note: str = ""
    done: int | None = None
    total: int | None = None


@dataclass(frozen=True)
class Refusal:
    """An engine did not load a version. ``final``: it will not, however often it is asked."""

    engine: str
    reason: Reason
    message: str
    final: bool = True


@dataclass(frozen=True)
class Loads:
    """Where one version is: on how many usable engines, and how many engines of any kind may still read it."""

    loaded: int = 0
    readers: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class Probed:
    """What engines answered to a version's probe: how many usable ones passed, and what others said instead.

    An engine that was not asked yet, or could not be reached, is in neither.
    """

    passed: int = 0
    failures: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class QueryResult:
    """What Prometheus said to a query of an analysis; ``value`` is None where it gave none, and ``error`` says why."""

    at: datetime
    value: float | None
    error: str = ""


@dataclass(frozen=True)
class Query:
    """A query that is to be asked before the next judgement: its name, and the PromQL with every name filled in."""

    name: str
    promql: str


@dataclass(frozen=True)
class FleetView:
    """What an adapter's decisions need of its fleet."""

    name: str
    claim_name: str
    mount_path: str
    drain_seconds: float
    deletion_seconds: float
    ready_to_publish: bool
    usable_engines: int
    expectations: str
    deleting: bool = False
    suspended: bool = False
    trouble: str = ""


@dataclass(frozen=True)
class Observed:
    """An adapter and everything that decides its next state."""

    name: str
    generation: int
    now: datetime
    spec: LoRAAdapterSpec | None
    status: LoRAAdapterStatus
    spec_error: str = ""
    namespace: str = ""
    action: str = ""
    deleting_since: datetime | None = None
    namespace_terminating: bool = False
    fleet: FleetView | None = None
    loads: Mapping[str, Loads] = field(default_factory=dict)
    published: Mapping[str, Published | Failed] = field(default_factory=dict)
    syncing: Mapping[str, Syncing] = field(default_factory=dict)
    removed: Mapping[str, Failed | None] = field(default_factory=dict)
    room: Room | None = None
    """None: the engines' limit is not known, or nothing of the adapter needs a place."""
    probes: Mapping[str, Probed] = field(default_factory=dict)
    """By served name, of this spec's probe."""
    statistics: Mapping[str, Record] = field(default_factory=dict)
    """By served name, what the routers counted; empty when the fleet has no router or none answers."""
    routers: int = 0
    """How many routers the statistics are from."""
    queries: Mapping[str, QueryResult] = field(default_factory=dict)
    """By name, the last answers to this rollout's queries."""
    turn: str = ""
    """Why a rollout may not begin yet, in a sentence: others come first. Empty: it may."""
    listed: Mapping[str, int] = field(default_factory=dict)
    """Served names of this adapter that usable engines list, and how many do; also ones that no status names."""
    noted: str = ""
    """The served name of the stable version as it was noted beside the status; empty before there was one."""
    damage: Mapping[str, str] = field(default_factory=dict)
    """What is known of served names whose files are not what was published."""


@dataclass(frozen=True)
class Plan:
    """The next status and what to do for it.

    ``publish`` are version names, ``remove``, ``places`` and ``orphans`` served names: ``places`` have just been given
    to versions; orphans are left to the fleet, because the adapter can no longer wait for them. ``release``: the
    finalizer has done its work. ``probe``: served names that engines are to be asked by, before their first weight;
    a name stays in it until it has weight, for engines that come meanwhile, and answers of a name that left it are to
    be forgotten. ``queries`` are to be asked at Prometheus now, for the judgement that is due; the next decision takes
    answers from after that moment. ``statistics``: after so many seconds at the latest the routers' counts should be
    looked at again. ``begins``: the status begins a rollout, which takes a turn.
    """

    status: LoRAAdapterStatus
    publish: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    probe: tuple[str, ...] = ()
    queries: tuple[Query, ...] = ()
    statistics: float | None = None
    begins: bool = False
    release: bool = False
    look_again: datetime | None = None
