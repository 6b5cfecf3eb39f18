"""What a decision about an adapter is made from, and what it says. Frozen data only.

Whoever gathers it does all the reading first; the time of the decision is a field.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lorafleet.api.adapter import LoRAAdapterSpec, LoRAAdapterStatus
from lorafleet.api.reasons import Reason


@dataclass(frozen=True)
class Published:
    """A version is on the volume, complete and checked."""

    id: int
    digest: str
    rank: int
    target_modules: tuple[str, ...]
    size_bytes: int
    min_engine: str | None = None


@dataclass(frozen=True)
class Failed:
    """A version could not be published, or not removed. ``retry``: it may pass without anyone's doing."""

    reason: Reason
    message: str
    retry: bool
    expectations: str = ""
    """What it was checked against, when that was written down."""


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
    action: str = ""
    deleting_since: datetime | None = None
    namespace_terminating: bool = False
    fleet: FleetView | None = None
    loads: Mapping[str, Loads] = field(default_factory=dict)
    published: Mapping[str, Published | Failed] = field(default_factory=dict)
    syncing: Mapping[str, str] = field(default_factory=dict)
    removed: Mapping[str, Failed | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The next status and what to do for it.

    ``publish`` are version names, ``remove`` and ``orphans`` served names; orphans are left to the fleet, because the
    adapter can no longer wait for them. ``release``: the finalizer has done its work.
    """

    status: LoRAAdapterStatus
    publish: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    release: bool = False
    look_again: datetime | None = None
