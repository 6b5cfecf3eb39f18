"""What engines list of an adapter whose status may have been lost: it serves on until the adapter is decided on again.

Pure reading of memory. Names are ours by their form and their path alone.
"""

from collections.abc import Mapping

from lorafleet.controller.objects import Adapter
from lorafleet.controller.state import FleetState
from lorafleet.rollout.wanted import ours


def strays(state: FleetState, listing: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """What of a listing is ours by its name and path, and wanted by nobody, by adapter."""
    found: dict[str, tuple[str, ...]] = {}
    for served in sorted(listing.keys() - state.load.keys() - state.keep):
        if ours(served, listing[served]):
            name = served.partition("/")[0]
            found[name] = (*found.get(name, ()), served)
    return found


def unknown(state: FleetState, adapter: Adapter, served: str) -> bool:
    """Whether an adapter's status may have been lost with this name in it: nothing of it is stable, nor names this."""
    if adapter.deleting_since is not None or adapter.spec is None or adapter.status.stable_version is not None:
        return False
    removals = state.fleet.status.pending_removals if state.fleet else ()
    known = {version.served_name for version in adapter.status.versions}
    return served not in known | {removal.served_name for removal in removals}


def listed(state: FleetState, adapter: Adapter) -> dict[str, int]:
    """Served names of an adapter that usable engines list, and how many do, while none of it is stable."""
    if adapter.status.stable_version is not None:
        return {}
    known = [version.served_name for version in adapter.status.versions if version.served_name]
    found: dict[str, int] = {}
    for engine in state.engines.values():
        if engine.usable and engine.listing:
            for served in {*known, *engine.strays.get(adapter.name, ())}:
                if served in engine.listing and ours(served, engine.listing[served]):
                    found[served] = found.get(served, 0) + 1
    return found
