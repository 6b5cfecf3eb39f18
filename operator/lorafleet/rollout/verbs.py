"""What a person asks for by the annotation ``lorafleet.dev/action: <verb>[:<argument>]@<token>``, each value once.

Abort beats pause beats promote: a paused rollout is not promoted before someone resumes it. Every value gets an answer
in ``status.actionMessage``, also when nothing comes of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lorafleet.api.adapter import VersionPhase
from lorafleet.api.model import timestamp
from lorafleet.api.reasons import Reason
from lorafleet.rollout.draft import Draft, aborted, entry_of, note, take_back
from lorafleet.rollout.observed import Observed
from lorafleet.rollout.split import fixed, in_force, serving
from lorafleet.rollout.versions import change, replaced

LONGEST = 512
"""Longer values are cut before they are compared and kept."""


@dataclass(frozen=True)
class Action:
    """An annotation's value, read."""

    verb: str
    argument: str = ""


def parse(value: str) -> Action:
    """The verb and its argument; the token only tells one request from another."""
    verb, _, argument = value.rpartition("@")[0].partition(":") if "@" in value else value.partition(":")
    return Action(verb.strip(), argument.strip())


def act(draft: Draft, observed: Observed) -> Draft:
    """Handles a value that is new; the answer says what came of it."""
    value = observed.action[:LONGEST]
    if not value or value == draft.handled:
        return draft
    draft = replace(draft, handled=value)
    if observed.status.observed_generation is None:
        return replace(draft, answer=f"{_shown(value)} was not acted on: it is older than this status; repeat it")
    action = parse(value)
    handler = HANDLERS.get(action.verb)
    if handler is None:
        return _no(draft, action, f"it is none of {', '.join(HANDLERS)}")
    if action.argument and action.verb != "rollback":
        return _no(draft, action, "it takes no argument; only rollback does, the version to go back to")
    return handler(draft, observed, action)


def refuse(draft: Draft, observed: Observed, why: str) -> Draft:
    """While nothing is decided, a new value is answered and not acted on later."""
    value = observed.action[:LONGEST]
    if not value or value == draft.handled:
        return draft
    return _no(replace(draft, handled=value), parse(value), why)


def _promote(draft: Draft, observed: Observed, action: Action) -> Draft:
    rollout = draft.rollout
    if rollout is None:
        return _no(draft, action, _nothing(observed))
    if rollout.paused:
        return _no(draft, action, f"the rollout of version {rollout.version} is paused: resume it first")
    if action.verb == "promote-full":
        text = f"version {rollout.version} gets all traffic, without further steps, as soon as it is loaded everywhere"
        return replace(draft.rolls(full=True), answer=text)
    return replace(draft, go_on=True, answer=f"the rollout of version {rollout.version} goes on with its next step")


def _pause(draft: Draft, observed: Observed, action: Action) -> Draft:
    rollout = draft.rollout
    if rollout is None:
        return _no(draft, action, _nothing(observed))
    if rollout.paused:
        return _no(draft, action, f"the rollout of version {rollout.version} is paused already")
    text = f"the rollout of version {rollout.version} is paused at {rollout.weight} %"
    return replace(draft.rolls(paused=True), answer=text)


def _resume(draft: Draft, observed: Observed, action: Action) -> Draft:
    rollout = draft.rollout
    if rollout is None:
        return _no(draft, action, _nothing(observed))
    if not rollout.paused:
        waits = rollout.held == Reason.WAITING_FOR_PROMOTION
        return _no(draft, action, "the rollout is not paused" + ("; promote ends the step" if waits else ""))
    draft = draft.rolls(paused=False, held=None, progress_at=timestamp(observed.now))
    return replace(draft, answer=f"the rollout of version {rollout.version} goes on")


def _abort(draft: Draft, observed: Observed, action: Action) -> Draft:
    rollout = draft.rollout
    if rollout is None:
        return _no(draft, action, f"{_nothing(observed)}; to go back from a version that serves, use rollback")
    text = f"a person aborted it at {rollout.weight} %"
    draft = take_back(draft, rollout.version, observed.now, Reason.ROLLOUT_ABORTED, text)
    return replace(draft, answer=f"version {rollout.version} is aborted: version {draft.stable} gets all traffic")


def _retry(draft: Draft, observed: Observed, action: Action) -> Draft:
    assert observed.spec is not None
    names = list(fixed(observed.spec)) or [observed.spec.active]
    barred = [name for name in names if aborted(entry_of(observed.spec, name), draft.aborted)]
    if barred:
        left = tuple(one for one in draft.aborted if one.version not in barred)
        draft = replace(draft, aborted=left, ask_anew=True)
        for name in barred:
            draft = note(draft, "Retried", name, observed.now)
        return replace(draft, answer=f"version {', '.join(barred)} is tried again")
    failed = [name for name in names if draft.versions[name].phase is VersionPhase.FAILED]
    for name in failed:
        draft = draft.put(change(draft.versions[name], phase=VersionPhase.PENDING, retry_at=None))
    if failed:
        return replace(draft, answer=f"version {', '.join(failed)} is fetched and checked again")
    if draft.rollout is None and draft.stable == observed.spec.active:
        return _no(draft, action, f"version {draft.stable} was not aborted and serves")
    return replace(draft, ask_anew=True, answer=f"engines are asked again whether version {', '.join(names)} answers")


def _rollback(draft: Draft, observed: Observed, action: Action) -> Draft:
    assert observed.spec is not None
    if fixed(observed.spec):
        return _no(draft, action, "spec.traffic asks for fixed shares: change it, or remove it first")
    rollout = draft.rollout
    if rollout is not None and action.argument in ("", draft.stable):
        return _abort(draft, observed, action)
    stable = draft.stable
    if stable is None or stable not in draft.versions:
        return _no(draft, action, "no version has served all requests yet")
    if action.argument == stable:
        return _no(draft, action, f"version {stable} serves already")
    found = [name for name in _served_before(draft, observed) if action.argument in ("", name)]
    if not found:
        which = f"version {action.argument}" if action.argument else "no other version of spec.versions"
        text = f"{which} has {'not ' if action.argument else ''}served all requests before, or was taken back since"
        return _no(draft, action, text)
    back = found[0]
    if rollout is not None and rollout.version != back:
        text = f"a person went back to version {back} while it was at {rollout.weight} %"
        draft = take_back(draft, rollout.version, observed.now, Reason.ROLLED_BACK, text)
        if stable in serving(draft):
            # Its share goes at once, whenever the version to go back to is loaded.
            draft = replace(draft, traffic=in_force(draft, {stable: 100}, frozenset()))
    draft = take_back(draft, stable, observed.now, Reason.ROLLED_BACK, f"a person went back to version {back}")
    loaded = draft.versions[back].phase is VersionPhase.LOADED
    after = "" if loaded else f" as soon as it is loaded; version {stable} serves until then"
    text = f"version {back} serves{after}; version {stable} is taken back"
    return replace(draft, stable=back, rollout=None, answer=text)


def _served_before(draft: Draft, observed: Observed) -> list[str]:
    """Versions that served all before, the last one first: never the present one, nor one that was taken back."""
    assert observed.spec is not None
    found = []
    for entry in observed.spec.versions:
        version = draft.versions[entry.name]
        if version.proven_at is None or entry.name == draft.stable:
            continue
        if not replaced(version, entry):
            found.append((version.proven_at, entry.name))
    return [name for _, name in sorted(found, reverse=True)]


def _nothing(observed: Observed) -> str:
    assert observed.spec is not None
    return "spec.traffic asks for fixed shares" if fixed(observed.spec) else "no rollout is under way"


def _no(draft: Draft, action: Action, why: str) -> Draft:
    return replace(draft, answer=f"{_shown(action.verb)} was refused: {why}")


def _shown(text: str) -> str:
    return text[:80] or "an empty action"


HANDLERS: dict[str, Callable[[Draft, Observed, Action], Draft]] = {
    "promote": _promote,
    "promote-full": _promote,
    "pause": _pause,
    "resume": _resume,
    "abort": _abort,
    "retry": _retry,
    "rollback": _rollback,
}
