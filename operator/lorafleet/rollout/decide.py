"""What an adapter needs next: the pure heart of the operator.

``decide`` takes what was observed and says the next status and the work for it, in this order: bytes on the volume;
what a person asked for; which version shall serve all; places on the engines; probes; one step of the rollout; the
shares that are possible now; what is kept for a rollback; what may leave. Each rule has a place of its own and a test.
"""

from dataclasses import replace

from lorafleet.api.adapter import LoRAAdapterStatus, VersionPhase, VersionStatus
from lorafleet.api.conditions import merge
from lorafleet.api.model import timestamp
from lorafleet.rollout import canary, verbs
from lorafleet.rollout import versions as steps
from lorafleet.rollout.draft import Draft, Todo, aborted, draft_of, entry_of, promote, prune, target
from lorafleet.rollout.kept import keep
from lorafleet.rollout.leaving import leave, retries, way_out
from lorafleet.rollout.lost import disproved, recovered
from lorafleet.rollout.observed import Observed, Plan
from lorafleet.rollout.placing import place, toward_bytes
from lorafleet.rollout.probes import Gate, count, needs_probe, probing
from lorafleet.rollout.split import Shares, fixed, in_force, possible, serving, shares_of
from lorafleet.rollout.verdicts import verdicts


def decide(observed: Observed) -> Plan:
    """The next status of an adapter and what to do for it."""
    todo = Todo()
    fleet = observed.fleet
    if observed.deleting_since is not None:
        if fleet is None or observed.namespace_terminating:
            gone = {"traffic": (), "versions": (), "rollout": None}
            return Plan(observed.status.model_copy(update=gone), release=True)
        status, late = leave(observed, todo)
        if not status.versions or late:
            orphans = tuple(version.served_name for version in status.versions if version.served_name)
            return Plan(status, release=True, orphans=orphans)
        return _finish(observed, status, todo)
    if observed.spec is None or observed.spec.suspend or (fleet and fleet.suspended and not fleet.deleting):
        return _finish(observed, _still(observed), todo)
    return _finish(observed, _rollout(observed, todo), todo)


def _still(observed: Observed) -> LoRAAdapterStatus:
    """While nothing is decided: what serves goes on serving, and clocks stand."""
    status = observed.status
    rollout = canary.suspended(status.rollout, observed.now) if status.rollout else None
    draft = draft_of(status, {})
    if observed.spec is not None:
        draft = verbs.refuse(draft, observed, "it is suspended: set spec.suspend to false first")
    changes = {"rollout": rollout, "last_handled_action": draft.handled, "action_message": draft.answer}
    return status.model_copy(update=changes)


def _rollout(observed: Observed, todo: Todo) -> LoRAAdapterStatus:
    spec = observed.spec
    assert spec is not None
    draft = _choose(_open(observed, todo), observed)
    if draft.ask_anew:
        observed = replace(observed, probes={})
        todo.look.append(observed.now)
    served = observed.fleet is not None and not observed.fleet.deleting
    if served:
        draft = _on_engines(draft, observed, todo)
    if draft.rollout is not None:
        draft = canary.advance(draft, observed, todo)
    ready = frozenset(name for name in draft.versions if _ready(draft, name, observed))
    first = _first(draft, observed)
    if served and first and possible(draft, {first: 100}, ready):
        draft = promote(draft, first, observed.now, "Served", "the first version")
    traffic = in_force(draft, _shares(draft, observed), ready) if served else ()
    carry = frozenset(shares_of(traffic))
    busy = carry | _wanted(draft, observed)
    if served:
        draft, kept = keep(draft, observed, busy, todo)
        busy |= kept
    left = _leave(draft, busy, observed, todo)
    names = {version.name for version in left}
    asked = {version.served_name for version in left if version.name not in carry and version.phase in steps.ON_ENGINES}
    todo.probe = [served_name for served_name in todo.probe if served_name in asked and not draft.ask_anew]
    return observed.status.model_copy(
        update={
            "stable_version": draft.stable if draft.stable in names else None,
            "active_version": spec.active,
            "traffic": traffic,
            "versions": left,
            "rollout": draft.rollout,
            "aborted": draft.aborted,
            "history": draft.history,
            "last_handled_action": draft.handled,
            "action_message": draft.answer,
        }
    )


def _open(observed: Observed, todo: Todo) -> Draft:
    """The draft with every version as far as its bytes are, and a stable version that still can be one."""
    spec = observed.spec
    assert spec is not None
    status = recovered(observed)
    entries = {entry.name: entry for entry in spec.versions}
    known = {version.name: version for version in status.versions}
    versions: dict[str, VersionStatus] = {}
    for name in [*entries, *(name for name in known if name not in entries)]:
        version, asks = toward_bytes(entries.get(name), known.get(name), observed)
        todo.publish += [name] if asks else []
        if steps.waits_for_room(version):
            version = steps.off_engines(version)
        versions[name] = steps.draining(version, observed) if steps.replaced(version, entries.get(name)) else version
    todo.publish.sort(key=lambda name: name != spec.active)
    draft = prune(draft_of(status, versions), spec)
    stable = versions.get(draft.stable or "")
    entry = entries.get(draft.stable or "")
    gone = stable is None or steps.replaced(stable, entry) or disproved(known.get(stable.name), stable)
    if gone or (stable and entry is None and stable.phase not in (*steps.ON_ENGINES, VersionPhase.DRAINING)):
        return replace(draft, stable=None)
    if stable is not None and stable.proven_at is None:
        draft = draft.put(steps.change(stable, proven_at=timestamp(observed.now)))
    return draft


def _choose(draft: Draft, observed: Observed) -> Draft:
    """What shall serve, and what a person asked for: to go back from what is written, or about what there is to be."""
    spec = observed.spec
    assert spec is not None
    if draft.rollout is not None and draft.rollout.version not in draft.versions:
        draft = draft.begins(None)
    verb = verbs.parse(observed.action).verb
    if verb == "rollback" or (verb == "abort" and draft.rollout is not None):
        draft = verbs.act(draft, observed)
    draft = canary.align(draft, _target(draft, observed), observed)
    draft = verbs.act(draft, observed)
    return canary.align(draft, _target(draft, observed), observed)


def _target(draft: Draft, observed: Observed) -> str | None:
    assert observed.spec is not None
    return None if fixed(observed.spec) else target(observed.spec, draft.aborted, draft.stable)


def _first(draft: Draft, observed: Observed) -> str | None:
    """The version that is to serve first of all: there is no stable one whose requests it would take."""
    return _target(draft, observed) if draft.stable is None else None


def _wanted(draft: Draft, observed: Observed) -> frozenset[str]:
    """What engines shall have beside what has weight: the stable version, the next one in its turn, a fixed split."""
    assert observed.spec is not None
    begun = draft.rollout is not None and draft.rollout.steps_hash
    names = {draft.stable, _first(draft, observed), draft.rollout.version if draft.rollout and begun else None}
    names |= {name for name in fixed(observed.spec) if not _barred(draft, name, observed)}
    return frozenset(name for name in names if name)


def _on_engines(draft: Draft, observed: Observed, todo: Todo) -> Draft:
    """Places on the engines, and the probes of what has none of the traffic yet."""
    if draft.rollout is not None:
        draft = canary.begin(draft, observed, todo)
    wanted = _wanted(draft, observed)
    carrying = serving(draft)
    # What serves comes first, should there be one place for two.
    first = [name for name in (draft.stable, *sorted(carrying)) if name]
    draft = place(draft, [*first, *(name for name in draft.versions if name in wanted)], observed, todo)
    for name in wanted:
        version = draft.versions[name]
        if version.phase in steps.ON_ENGINES and needs_probe(draft, name, observed):
            assert version.served_name
            todo.probe.append(version.served_name)
            draft = draft.put(count(version, observed))
    todo.probe.sort()
    return draft


def _barred(draft: Draft, name: str, observed: Observed) -> bool:
    assert observed.spec is not None
    return aborted(entry_of(observed.spec, name), draft.aborted) is not None


def _ready(draft: Draft, name: str, observed: Observed) -> bool:
    """Whether a version may have its first weight, as far as it is up to probes."""
    return not needs_probe(draft, name, observed) or probing(draft.versions[name], observed).gate is Gate.OPEN


def _shares(draft: Draft, observed: Observed) -> Shares:
    """The shares that there shall be, whether or not they are possible now."""
    assert observed.spec is not None
    split = fixed(observed.spec)
    refused = any(_barred(draft, name, observed) for name in split)
    leaves = any(_barred(draft, name, observed) for name in serving(draft))
    if split and not (refused and leaves):
        return {} if refused else split
    if draft.stable is None:
        return {}
    if draft.rollout is None or not draft.rollout.weight:
        return {draft.stable: 100}
    weight = draft.rollout.weight
    shares = {draft.stable: 100 - weight, draft.rollout.version: weight}
    return {name: share for name, share in shares.items() if share}


def _leave(draft: Draft, stay: frozenset[str], observed: Observed, todo: Todo) -> tuple[VersionStatus, ...]:
    """The versions that are left: what has no place here any more drains, is unloaded, and goes with its entry."""
    assert observed.spec is not None
    entries = {entry.name: entry for entry in observed.spec.versions}
    served = observed.fleet is not None and not observed.fleet.deleting
    left: list[VersionStatus] = []
    for name, version in draft.versions.items():
        if not served and version.phase in (*steps.ON_ENGINES, VersionPhase.DRAINING):
            version = steps.off_engines(version)
        elif name not in stay:
            version = steps.draining(version, observed)
        after = way_out(version, entries.get(name), observed, todo)
        left += [after] if after is not None else []
        todo.look += [observed.now] if after is None and name in entries else []
    todo.look += retries(left, observed)
    return tuple(left)


def _finish(observed: Observed, status: LoRAAdapterStatus, todo: Todo) -> Plan:
    """Adds what every status has: conditions, the generation, the summary for the table."""
    by_name = {version.name: version for version in status.versions}
    active = by_name.get(status.active_version or "")
    fleet = observed.fleet
    shown = f"{active.loaded_engines or 0}/{fleet.usable_engines}" if active and fleet else None
    conditions = merge(
        observed.status.conditions, verdicts(observed, status), observed.generation, timestamp(observed.now)
    )
    status = status.model_copy(
        update={"observed_generation": observed.generation, "loaded": shown, "conditions": conditions}
    )
    return Plan(
        status,
        publish=tuple(todo.publish),
        remove=tuple(todo.remove),
        places=tuple(todo.places),
        probe=tuple(todo.probe),
        queries=todo.queries,
        statistics=todo.statistics,
        begins=todo.begins,
        look_again=min(todo.look) if todo.look else None,
    )
