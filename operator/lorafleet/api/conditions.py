"""Conditions by the kstatus convention, and how one set of them becomes the next.

``Ready``, ``Reconciling`` and ``Stalled`` are what kubectl wait, Flux and Argo CD read; ``Available`` says that some
version serves; ``FieldsIgnored`` that something is set which this release does not act on; ``Checked`` whether every
check was made and found nothing worth a person's look. No I/O, no clock: the time
of a transition is a parameter.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from lorafleet.api.model import ApiModel
from lorafleet.api.reasons import Reason

MESSAGE_LIMIT = 4096


class ConditionType(StrEnum):
    """The types of condition that both kinds carry."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    AVAILABLE = "Available"
    FIELDS_IGNORED = "FieldsIgnored"
    CHECKED = "Checked"


class Condition(ApiModel):
    """One aspect of an object's state (meta/v1 Condition)."""

    type: Annotated[str, Field(max_length=316, description="What aspect this condition reports.")]
    status: Annotated[Literal["True", "False", "Unknown"], Field(description="Whether the aspect holds.")]
    reason: Annotated[
        str, Field(max_length=128, description="One word of a closed set that says why; see docs/reasons.md.")
    ]
    message: Annotated[
        str, Field(max_length=32768, description="What was found, what was expected and what to do next.")
    ]
    last_transition_time: Annotated[
        str, Field(description="When the status last changed.", json_schema_extra={"format": "date-time"})
    ]
    observed_generation: Annotated[
        int, Field(description="The generation of the object that this condition was computed from.")
    ]


class Verdict(ApiModel):
    """A condition before it has a time: what a decision says."""

    type: ConditionType
    status: bool
    reason: Reason
    message: str


def merge(old: Iterable[Condition], verdicts: Iterable[Verdict], generation: int, now: str) -> tuple[Condition, ...]:
    """The next conditions, in the verdicts' order: a time moves only when the status does.

    A verdict replaces the condition of its type; a condition without a verdict is dropped.
    """
    before = {condition.type: condition for condition in old}
    result = []
    for verdict in verdicts:
        status: Literal["True", "False"] = "True" if verdict.status else "False"
        known = before.get(verdict.type)
        since = known.last_transition_time if known and known.status == status else now
        result.append(
            Condition(
                type=verdict.type,
                status=status,
                reason=verdict.reason,
                message=verdict.message[:MESSAGE_LIMIT],
                last_transition_time=since,
                observed_generation=generation,
            )
        )
    return tuple(result)


def transitions(old: Iterable[Condition], new: Iterable[Condition]) -> tuple[Condition, ...]:
    """The conditions of ``new`` whose status or reason differs from ``old``: each is worth one event."""
    before = {condition.type: (condition.status, condition.reason) for condition in old}
    return tuple(c for c in new if before.get(c.type) != (c.status, c.reason))
