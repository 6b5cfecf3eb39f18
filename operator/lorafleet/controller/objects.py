"""Our two kinds as the operator tracks them: parsed once per change, with the status it wrote last.

A watch may deliver an object older than our own write; the resource version decides which status counts. A spec that
the models refuse does not stop anything else: it becomes an error text for a condition.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from lorafleet.api.adapter import LoRAAdapterSpec, LoRAAdapterStatus
from lorafleet.api.fleet import SpecialistFleetSpec
from lorafleet.api.fleetstatus import SpecialistFleetStatus
from lorafleet.api.model import ApiModel, moment
from lorafleet.api.names import ACTION_ANNOTATION, FINALIZER, STABLE_ANNOTATION

SpecT = TypeVar("SpecT", bound=ApiModel)
StatusT = TypeVar("StatusT", bound=ApiModel)
Ref = tuple[str, str]
"""Namespace and name."""


@dataclass
class Tracked(Generic[SpecT, StatusT]):
    """One object of ours. ``noted``: the served name that its metadata says is stable."""

    namespace: str
    name: str
    uid: str
    created: str
    generation: int
    seen: int
    version: int
    deleting_since: datetime | None
    finalizers: tuple[str, ...]
    action: str
    spec: SpecT | None
    spec_error: str
    status: StatusT
    labels: Mapping[str, str] = field(default_factory=dict)
    noted: str = ""
    written: dict[str, Any] = field(default_factory=dict)

    def after(self, before: "Tracked[SpecT, StatusT] | None") -> bool:
        """Takes over from an older view of the same object; whether anything of it is new.

        ``seen`` is the resource version of the last event, ``version`` that of the status: an event older than our own
        write of the status still brings its spec, but not its status.
        """
        if before is None or before.uid != self.uid:
            return True
        if self.seen <= before.seen:
            return False
        if self.seen < before.version:
            self.status, self.written, self.version = before.status, before.written, before.version
        same = ("generation", "deleting_since", "finalizers", "action", "labels", "noted", "written")
        new = any(getattr(self, name) != getattr(before, name) for name in same)
        if not new:
            before.seen, before.version = self.seen, max(self.version, before.version)
        return new

    @property
    def ref(self) -> Ref:
        """Namespace and name."""
        return self.namespace, self.name

    @property
    def has_finalizer(self) -> bool:
        """Whether our finalizer holds the object."""
        return FINALIZER in self.finalizers


Adapter = Tracked[LoRAAdapterSpec, LoRAAdapterStatus]
Fleet = Tracked[SpecialistFleetSpec, SpecialistFleetStatus]


def _first_error(error: ValidationError) -> str:
    """One line about the first thing wrong, without the value: it might be a secret."""
    first = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"spec.{where}: {first['msg']}" if where else f"spec: {first['msg']}"


def _parser(
    spec_model: type[SpecT], status_model: type[StatusT]
) -> Callable[[dict[str, Any]], Tracked[SpecT, StatusT]]:
    def parse(raw: dict[str, Any]) -> Tracked[SpecT, StatusT]:
        meta = raw["metadata"]
        annotations = meta.get("annotations") or {}
        spec: SpecT | None = None
        spec_error = ""
        try:
            spec = spec_model.model_validate(raw.get("spec") or {})
        except ValidationError as error:
            spec_error = _first_error(error)
        written = raw.get("status") or {}
        try:
            status = status_model.model_validate(written)
        except ValidationError:
            status, written = status_model(), {}
        deleted = meta.get("deletionTimestamp")
        return Tracked(
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
            created=meta.get("creationTimestamp", ""),
            generation=meta.get("generation", 1),
            seen=int(meta["resourceVersion"]),
            version=int(meta["resourceVersion"]),
            deleting_since=moment(deleted) if deleted else None,
            finalizers=tuple(meta.get("finalizers") or ()),
            action=str(annotations.get(ACTION_ANNOTATION, "")),
            spec=spec,
            spec_error=spec_error,
            status=status,
            labels=dict(meta.get("labels") or {}),
            noted=str(annotations.get(STABLE_ANNOTATION, "")),
            written=written,
        )

    return parse


parse_adapter = _parser(LoRAAdapterSpec, LoRAAdapterStatus)
parse_fleet = _parser(SpecialistFleetSpec, SpecialistFleetStatus)
