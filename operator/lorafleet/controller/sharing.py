"""Fleets of a namespace on one claim: what is on it goes only when none of them needs it. Pure reading of memory."""

from collections.abc import Collection

from lorafleet.controller.objects import Ref
from lorafleet.controller.state import FleetState


def on_claim(fleets: Collection[FleetState], ref: Ref) -> list[FleetState]:
    """A fleet, and the others whose versions lie on the same claim."""
    claims = {one.ref: one.fleet.spec.storage.claim_name for one in fleets if one.fleet and one.fleet.spec}
    return [one for one in fleets if one.ref[0] == ref[0] and one.ref in claims and claims[one.ref] == claims.get(ref)]


def may_come_back(fleets: Collection[FleetState], served: str) -> bool:
    """Whether an adapter has, or is about to get, a version of this name: its publishing may find these very bytes."""
    return any(_may_come_back(one, served) for one in fleets)


def _may_come_back(state: FleetState, served: str) -> bool:
    name, _, folder = served.partition("/")
    adapter = state.adapters.get(name)
    if adapter is None or adapter.deleting_since is not None:
        return False
    known = {version.name: version for version in adapter.status.versions}
    if any(version.served_name == served for version in known.values()):
        return True
    version = folder.rpartition("-")[0]
    entries = adapter.spec.versions if adapter.spec else ()
    return any(entry.name == version for entry in entries) and (version not in known or known[version].digest is None)
