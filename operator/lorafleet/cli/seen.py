"""Adapters and fleets as commands see them: what the API server sent, read once, and what follows from it.

Pure. What another release wrote and this one cannot read is no reason to show nothing: it is said in ``trouble``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from lorafleet.api.adapter import LoRAAdapterSpec, LoRAAdapterStatus, VersionStatus
from lorafleet.api.conditions import Condition, ConditionType
from lorafleet.api.fleet import SpecialistFleetSpec
from lorafleet.api.fleetstatus import SpecialistFleetStatus
from lorafleet.api.model import ApiModel
from lorafleet.api.names import ACTION_ANNOTATION
from lorafleet.api.rollout import RolloutStep

_Model = TypeVar("_Model", bound=ApiModel)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which object it is."""

    name: str
    namespace: str
    created: str | None
    generation: int
    deleting: bool

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> "Identity":
        """From the object's metadata."""
        meta = item["metadata"]
        return cls(
            name=meta["name"],
            namespace=meta.get("namespace", ""),
            created=meta.get("creationTimestamp"),
            generation=meta.get("generation", 0),
            deleting="deletionTimestamp" in meta,
        )


class HasConditions(Protocol):
    """An adapter or a fleet."""

    @property
    def identity(self) -> Identity:
        """Which object it is."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Its conditions."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A ``LoRAAdapter``. ``spec`` is None when this release cannot read it."""

    identity: Identity
    fleet: str
    action: str | None
    spec: LoRAAdapterSpec | None
    status: LoRAAdapterStatus
    trouble: str | None = None

    @property
    def name(self) -> str:
        """The adapter's name."""
        return self.identity.name

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Its conditions."""
        return self.status.conditions

    @property
    def active(self) -> str | None:
        """The version that the spec asks for."""
        return self.spec.active if self.spec else self.status.active_version

    @property
    def target(self) -> str | None:
        """The version that all traffic goes to or is on its way to: the active one, unless it was taken back."""
        active = self.active
        return self.status.stable_version if active is not None and self.aborted(active) else active

    @property
    def steps(self) -> tuple[RolloutStep, ...]:
        """The steps of a rollout, as the spec has them."""
        return self.spec.rollout.steps if self.spec and self.spec.rollout else ()

    def aborted(self, version: str) -> str | None:
        """Why a version was taken back, in one word; None when it was not."""
        known = self.version(version)
        for one in self.status.aborted:
            same_entry = known is None or known.entry_hash is None or known.entry_hash == one.entry_hash
            if one.version == version and same_entry:
                return one.reason
        return None

    def version(self, name: str | None) -> VersionStatus | None:
        """What the operator knows of a version."""
        return next((version for version in self.status.versions if version.name == name), None)

    def weight(self, version: str) -> int:
        """The version's share of the requests, in percent."""
        return sum(target.weight for target in self.status.traffic if target.version == version)

    @property
    def watched(self) -> VersionStatus | None:
        """The version whose numbers say most: the one on its way, else the one with most traffic, else the target."""
        if self.status.rollout:
            return self.version(self.status.rollout.version)
        most = max(self.status.traffic, key=lambda target: target.weight, default=None)
        return self.version(most.version if most else self.target)


@dataclass(frozen=True, slots=True)
class Fleet:
    """A ``SpecialistFleet``. ``spec`` is None when this release cannot read it."""

    identity: Identity
    spec: SpecialistFleetSpec | None
    status: SpecialistFleetStatus
    trouble: str | None = None

    @property
    def name(self) -> str:
        """The fleet's name."""
        return self.identity.name

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Its conditions."""
        return self.status.conditions


def adapter(item: Mapping[str, Any]) -> Adapter:
    """A ``LoRAAdapter`` as the API server sent it."""
    spec, wrong = _read(LoRAAdapterSpec, item, "spec")
    status, odd = _read(LoRAAdapterStatus, item, "status")
    return Adapter(
        identity=Identity.of(item),
        fleet=str(item.get("spec", {}).get("fleet", "")),
        action=(item["metadata"].get("annotations") or {}).get(ACTION_ANNOTATION),
        spec=spec,
        status=status or LoRAAdapterStatus(),
        trouble=wrong or odd,
    )


def fleet(item: Mapping[str, Any]) -> Fleet:
    """A ``SpecialistFleet`` as the API server sent it."""
    spec, wrong = _read(SpecialistFleetSpec, item, "spec")
    status, odd = _read(SpecialistFleetStatus, item, "status")
    return Fleet(Identity.of(item), spec, status or SpecialistFleetStatus(), wrong or odd)


def condition(found: HasConditions, kind: ConditionType) -> Condition | None:
    """One of its conditions."""
    return next((one for one in found.conditions if one.type == kind), None)


def holds(found: HasConditions, kind: ConditionType) -> bool:
    """Whether a condition is True and about the present spec: one of an older spec says nothing of this one."""
    one = condition(found, kind)
    return one is not None and one.status == "True" and one.observed_generation >= found.identity.generation


def _read(model: type[_Model], item: Mapping[str, Any], part: str) -> tuple[_Model | None, str | None]:
    """Part of an object, or why this release cannot read it."""
    try:
        return model.model_validate(item.get(part) or {}), None
    except ValidationError as error:
        if part not in item:
            return None, None
        fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field = ".".join(str(one) for one in (part, *fault["loc"]))
        return None, f"{field} is not what this release of lorafleet knows; use the release of the operator"
