"""What a status write says of a rollout that the one before did not: events for people, counts for Prometheus. Pure."""

from dataclasses import dataclass

from lorafleet.api.adapter import LoRAAdapterStatus
from lorafleet.api.reasons import Reason
from lorafleet.api.rolloutstatus import RolloutPhase

REASONS = {
    "Started": Reason.ROLLOUT_PROGRESSING,
    "Aborted": Reason.ROLLOUT_ABORTED,
    "RolledBack": Reason.ROLLED_BACK,
    "Promoted": Reason.PROMOTED,
    "Superseded": Reason.SUPERSEDED,
    "Retried": Reason.RETRIED,
}
"""Events for entries of the history; that a first version serves is an event of its condition."""
ALARMING = frozenset({"Aborted"})


@dataclass(frozen=True)
class Happened:
    """An event: its reason and words, and whether a person should look."""

    reason: str
    message: str
    warning: bool = False


def happened(before: LoRAAdapterStatus, after: LoRAAdapterStatus) -> list[Happened]:
    """The transitions between two statuses, the oldest first."""
    found = []
    known = set(before.history)
    for entry in after.history:
        if entry not in known and entry.what in REASONS:
            message = f"version {entry.version}: {entry.message or entry.what}"
            found.append(Happened(REASONS[entry.what], message, entry.what in ALARMING))
    rollout, was = after.rollout, before.rollout
    if rollout is not None:
        same = was is not None and was.version == rollout.version and was.started_at == rollout.started_at
        if rollout.step and not (same and was and was.step == rollout.step and was.weight == rollout.weight):
            text = f"version {rollout.version} has {rollout.weight} % of the requests"
            found.append(Happened(Reason.ROLLOUT_PROGRESSING, f"{text} (step {rollout.step} of {rollout.steps})"))
        if rollout.phase is RolloutPhase.PAUSED and not (same and was and was.phase is rollout.phase):
            text = rollout.message or f"the rollout of version {rollout.version} is paused"
            found.append(Happened(rollout.held or rollout.phase.value, text))
    return found


def aborted(before: LoRAAdapterStatus, after: LoRAAdapterStatus) -> list[str]:
    """The reasons of versions that were taken back by this write."""
    known = {(one.version, one.entry_hash, one.at) for one in before.aborted}
    return [one.reason for one in after.aborted if (one.version, one.entry_hash, one.at) not in known]


def promotions(before: LoRAAdapterStatus, after: LoRAAdapterStatus) -> int:
    """How many versions came to serve all requests by this write."""
    known = set(before.history)
    return sum(entry.what == "Promoted" and entry not in known for entry in after.history)
