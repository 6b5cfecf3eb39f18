"""The way of one rollout: its turn, its engines, its probes, its steps, to all traffic or to its abortion.

A step's clock counts only while the version is loaded on every usable engine and nobody holds it; at most one step is
taken in one decision, so that each share is written before the next.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lorafleet.api.adapter import VersionPhase
from lorafleet.api.model import moment, seconds, timestamp
from lorafleet.api.reasons import Reason
from lorafleet.api.rollout import OnDeadline, Rollout, RolloutStep
from lorafleet.api.rolloutstatus import RolloutPhase, RolloutStatus
from lorafleet.rollout import analysis
from lorafleet.rollout.draft import Draft, Todo, entry_of, note, promote, proven, take_back
from lorafleet.rollout.judge import FAILED
from lorafleet.rollout.observed import Observed
from lorafleet.rollout.probes import Gate, needs_probe, probing
from lorafleet.rollout.split import serving
from lorafleet.rollout.versions import replaced
from lorafleet.rollout.way import way

TURN_AGAIN = 15.0
"""Seconds until the next look for a turn; whoever ends a rollout says so, so this is for what nobody saw."""


@dataclass(frozen=True)
class Hold:
    """Why a rollout does not go on. ``lacking``: that is a lack of progress, from ``since`` on if that is later."""

    phase: RolloutPhase
    reason: Reason | None
    message: str
    lacking: bool = False
    since: datetime | None = None


def rules(observed: Observed) -> Rollout:
    """The rules of the spec; without any, a version takes all traffic at once."""
    assert observed.spec is not None
    return observed.spec.rollout or Rollout()


def steps_hash(steps: tuple[RolloutStep, ...]) -> str:
    """Twelve hex digits that tell these steps from others."""
    text = json.dumps([step.to_json() for step in steps], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def steps_of(draft: Draft, observed: Observed) -> tuple[RolloutStep, ...]:
    """The steps that are to be taken: none by a version that has proven itself, or when a person asked for all."""
    assert draft.rollout is not None
    return () if draft.rollout.full or proven(draft, draft.rollout.version) else rules(observed).steps


def align(draft: Draft, wanted: str | None, observed: Observed) -> Draft:
    """The rollout that there is to be: of the wanted version, if another one is stable; else none."""
    rollout = draft.rollout
    if wanted is None or draft.stable is None or wanted == draft.stable:
        if rollout is not None:
            why = f"version {wanted} shall serve all" if wanted else "spec.traffic asks for fixed shares"
            draft = note(draft, "Superseded", rollout.version, observed.now, why)
        return draft.begins(None)
    if rollout is not None and rollout.version == wanted:
        if rollout.step and not _published(draft, observed):
            # Its bytes have to be published again: nothing that it has shown is about them.
            return draft.rolls(step=0, weight=0, step_since=None, step_done=0.0, analysis=None)
        return draft
    if rollout is not None:
        draft = note(draft, "Superseded", rollout.version, observed.now, f"by version {wanted}")
    now = timestamp(observed.now)
    return draft.begins(RolloutStatus(version=wanted, phase=RolloutPhase.WAITING, started_at=now, progress_at=now))


def begin(draft: Draft, observed: Observed, todo: Todo) -> Draft:
    """Whether the rollout's version may go to the engines: it is published, nobody holds it, and it is its turn."""
    rollout = draft.rollout
    assert rollout is not None
    if rollout.steps_hash:
        return draft
    if not _published(draft, observed):
        return draft
    takes_turn = bool(steps_of(draft, observed))
    if rollout.paused or (takes_turn and observed.turn):
        return draft
    todo.begins = todo.begins or takes_turn
    draft = draft.rolls(steps_hash=steps_hash(rules(observed).steps), progress_at=timestamp(observed.now))
    return note(draft, "Started", rollout.version, observed.now) if takes_turn else draft


def _published(draft: Draft, observed: Observed) -> bool:
    """Whether the bytes of the rollout's version are on the volume, and those of its entry."""
    assert draft.rollout is not None and observed.spec is not None
    version = draft.versions[draft.rollout.version]
    return version.digest is not None and not replaced(version, entry_of(observed.spec, version.name))


def advance(draft: Draft, observed: Observed, todo: Todo) -> Draft:
    """One decision further, with what engines, probes, routers and the clock say."""
    assert draft.rollout is not None
    name = draft.rollout.version
    draft = draft.rolls(steps=len(rules(observed).steps))
    if needs_probe(draft, name, observed) and probing(draft.versions[name], observed).gate is Gate.SHUT:
        found = probing(draft.versions[name], observed)
        return take_back(draft, name, observed.now, Reason.PROBE_FAILED, found.message)
    obstacle = _obstacle(draft, observed)
    draft = _clock(draft, observed, obstacle is None)
    draft, failure = analysis.assess(draft, observed, todo)
    if failure is not None:
        return take_back(draft, name, observed.now, Reason.ANALYSIS_FAILED, failure)
    after = _next(draft, obstacle, observed, todo)
    if isinstance(after, Draft):
        return after
    if draft.go_on:
        draft = replace(draft, answer=f"promote was refused: {after.message}")
    return _held(draft, after, observed, todo)


def hold_clock(rollout: RolloutStatus, now: datetime) -> RolloutStatus:
    """The step's clock stands: what has passed of the step is kept."""
    if rollout.step_since is None:
        return rollout
    done = rollout.step_done + (now - moment(rollout.step_since)).total_seconds()
    return rollout.model_copy(update={"step_since": None, "step_done": round(done, 3), "progress_at": timestamp(now)})


def suspended(rollout: RolloutStatus, now: datetime) -> RolloutStatus:
    """While nothing is decided: the clocks stand, the shares stay."""
    rollout = hold_clock(rollout, now)
    if rollout.paused:
        return rollout
    text = "suspended: the shares stay as they are"
    return rollout.model_copy(update={"held": Reason.SUSPENDED.value, "message": text})


def _clock(draft: Draft, observed: Observed, free: bool) -> Draft:
    """Runs while the version is on every usable engine and nobody holds it."""
    rollout = draft.rollout
    assert rollout is not None
    if rollout.held == Reason.SUSPENDED:
        rollout = rollout.model_copy(update={"progress_at": timestamp(observed.now)})
    if rollout.step == 0 or rollout.paused or not free:
        rollout = hold_clock(rollout, observed.now)
    elif rollout.step_since is None:
        rollout = rollout.model_copy(update={"step_since": timestamp(observed.now)})
    return draft.begins(rollout)


def _obstacle(draft: Draft, observed: Observed) -> Hold | None:
    """What keeps the version from having any share now, on the side of the engines."""
    rollout = draft.rollout
    assert rollout is not None
    version = draft.versions[rollout.version]
    if not rollout.steps_hash and observed.turn and steps_of(draft, observed) and _published(draft, observed):
        return Hold(RolloutPhase.WAITING, Reason.WAITING_FOR_TURN, observed.turn)
    why = way(observed, version)
    if why is not None and rollout.step:
        text = f"the shares stay as they are: {why.message}"
        return Hold(RolloutPhase.PROGRESSING, Reason.ENGINE_RESTARTED, text, lacking=True)
    if why is not None:
        return Hold(RolloutPhase.WAITING, why.reason, why.message, lacking=True)
    phase = RolloutPhase.PROGRESSING if rollout.step else RolloutPhase.WAITING
    if needs_probe(draft, version.name, observed):
        found = probing(version, observed)
        if found.gate is not Gate.OPEN:
            return Hold(phase, Reason.PROBING, found.message, lacking=True)
    stable = draft.versions.get(draft.stable or "")
    carries = stable is not None and (stable.phase is VersionPhase.LOADED or stable.name in serving(draft))
    if steps_of(draft, observed) and not carries:
        text = f"version {draft.stable}, which has the rest of the traffic, is not loaded on every usable engine"
        return Hold(phase, Reason.LOADING, text, lacking=True)
    return None


def _next(draft: Draft, obstacle: Hold | None, observed: Observed, todo: Todo) -> Draft | Hold:
    rollout = draft.rollout
    assert rollout is not None
    if rollout.paused:
        return _paused(draft)
    if obstacle is not None:
        if obstacle.reason is Reason.WAITING_FOR_TURN:
            todo.look.append(observed.now + timedelta(seconds=TURN_AGAIN))
        return obstacle
    steps = steps_of(draft, observed)
    if not steps:
        return _all(draft, observed)
    if rollout.step == 0 or rollout.steps_hash != steps_hash(rules(observed).steps):
        return _step(draft, 1, observed, todo)
    hold = None if draft.go_on else _stay(draft, steps[rollout.step - 1], observed, todo)
    if hold is not None:
        return hold
    return _all(draft, observed) if rollout.step == len(steps) else _step(draft, rollout.step + 1, observed, todo)


def _stay(draft: Draft, step: RolloutStep, observed: Observed, todo: Todo) -> Hold | None:
    """Why the version stays at a step: for a person, for its time, for a judgement that passes."""
    rollout = draft.rollout
    assert rollout is not None
    name = rollout.version
    if step.waits_for_a_person:
        text = f"version {name} has {step.weight} % and waits for a person: kubectl lorafleet promote"
        return Hold(RolloutPhase.PAUSED, Reason.WAITING_FOR_PROMOTION, text)
    over = _over_at(rollout, step)
    if observed.now < over:
        todo.look.append(over)
        return Hold(RolloutPhase.PROGRESSING, None, f"version {name} has {step.weight} % until {timestamp(over)}")
    return _not_passed(draft, over)


def _over_at(rollout: RolloutStatus, step: RolloutStep) -> datetime:
    assert rollout.step_since is not None
    return moment(rollout.step_since) + timedelta(seconds=max(step.pause_seconds - rollout.step_done, 0.0))


def _not_passed(draft: Draft, over: datetime) -> Hold | None:
    """A step's time is over, and no judgement within it has passed."""
    rollout = draft.rollout
    assert rollout is not None
    state = rollout.analysis
    if state is None or state.passed:
        return None
    about = "; ".join(measure.message for measure in state.measures if measure.verdict == state.verdict)
    text = about or "the version has not been judged yet"
    failed = state.verdict == FAILED
    reason = Reason.ANALYSIS_FAILED if failed else Reason.ANALYSIS_UNDECIDED
    text = f"step {rollout.step} holds at {rollout.weight} %: {text}"
    return Hold(RolloutPhase.PROGRESSING, reason, text, lacking=True, since=over)


def _paused(draft: Draft) -> Hold:
    rollout = draft.rollout
    assert rollout is not None
    if rollout.held == Reason.PROGRESS_DEADLINE_EXCEEDED:
        return Hold(RolloutPhase.PAUSED, Reason.PROGRESS_DEADLINE_EXCEEDED, rollout.message or "")
    text = f"paused by a person at {rollout.weight} %: kubectl lorafleet resume, or abort"
    return Hold(RolloutPhase.PAUSED, Reason.ROLLOUT_PAUSED, text)


def _step(draft: Draft, number: int, observed: Observed, todo: Todo) -> Draft:
    """At the begin of a step."""
    steps = rules(observed).steps
    step = steps[number - 1]
    now = timestamp(observed.now)
    assert draft.rollout is not None
    name = draft.rollout.version
    draft = draft.rolls(
        phase=RolloutPhase.PROGRESSING,
        step=number,
        weight=step.weight,
        steps_hash=steps_hash(steps),
        step_since=now,
        step_done=0.0,
        progress_at=now,
        held=None,
    )
    draft = draft.rolls(analysis=analysis.fresh(draft, observed))
    draft, _ = analysis.assess(draft, observed, todo)
    hold = _stay(draft, step, observed, todo)
    if hold is None:
        # The next step follows in a decision of its own: each share is written.
        todo.look.append(observed.now)
        return draft.rolls(message=f"version {name} has {step.weight} %")
    return draft.rolls(phase=hold.phase, held=hold.reason.value if hold.reason else None, message=hold.message)


def _all(draft: Draft, observed: Observed) -> Draft:
    """The end: the version serves all, is the stable one and proven."""
    assert draft.rollout is not None
    name, before = draft.rollout.version, draft.stable
    back = proven(draft, name)
    text = f"all traffic went back from version {before}" if back else f"all traffic, after version {before}"
    return promote(draft, name, observed.now, "RolledBack" if back else "Promoted", text)


def _held(draft: Draft, hold: Hold, observed: Observed, todo: Todo) -> Draft:
    """A rollout that does not go on; for too long, and it is aborted or paused."""
    assert draft.rollout is not None
    deadline = rules(observed).progress_deadline
    reason = hold.reason.value if hold.reason else None
    if hold.lacking and deadline is not None:
        started = moment(draft.rollout.progress_at)
        due = max(started, hold.since or started) + timedelta(seconds=seconds(deadline))
        if due > observed.now:
            todo.look.append(due)
        else:
            return _too_late(draft, hold, deadline, observed)
    return draft.rolls(phase=hold.phase, held=reason, message=hold.message)


def _too_late(draft: Draft, hold: Hold, deadline: str, observed: Observed) -> Draft:
    assert draft.rollout is not None
    text = f"no progress for {deadline}: {hold.message}"
    if rules(observed).on_deadline is OnDeadline.ABORT:
        return take_back(draft, draft.rollout.version, observed.now, Reason.PROGRESS_DEADLINE_EXCEEDED, text)
    draft = draft.rolls(
        phase=RolloutPhase.PAUSED,
        paused=True,
        held=Reason.PROGRESS_DEADLINE_EXCEEDED.value,
        message=f"{text}; kubectl lorafleet resume, or abort",
    )
    assert draft.rollout is not None
    return draft.begins(hold_clock(draft.rollout, observed.now))
