"""Events and counts of rollouts: what one status says that the one before did not."""

from typing import Any

import pytest

from lorafleet.api.adapter import LoRAAdapterStatus
from lorafleet.controller.happened import aborted, happened, promotions

ROLLOUT = {"version": "2", "phase": "Progressing", "startedAt": "a", "progressAt": "a", "steps": 3}
PROMOTED = {"at": "t", "version": "2", "what": "Promoted", "message": "all traffic, after version 1"}


def status(rollout: dict[str, Any] | None = None, **more: Any) -> LoRAAdapterStatus:
    found = {"rollout": {**ROLLOUT, **rollout}} if rollout is not None else {}
    return LoRAAdapterStatus.model_validate({**found, **more})


def said(before: LoRAAdapterStatus, after: LoRAAdapterStatus) -> list[tuple[str, str]]:
    return [(str(one.reason), one.message) for one in happened(before, after)]


STEP_1 = {"step": 1, "weight": 5}


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        (status(), status(), []),
        (status(), status({"phase": "Waiting"}), []),
        (
            status({}),
            status(STEP_1),
            [("RolloutProgressing", "version 2 has 5 % of the requests (step 1 of 3)")],
        ),
        (status(STEP_1), status({**STEP_1, "stepDone": 3.0}), []),
        (
            status(STEP_1),
            status({"step": 2, "weight": 25}),
            [("RolloutProgressing", "version 2 has 25 % of the requests (step 2 of 3)")],
        ),
        (
            status(STEP_1),
            status({**STEP_1, "phase": "Paused", "held": "RolloutPaused", "message": "paused by a person"}),
            [("RolloutPaused", "paused by a person")],
        ),
        (
            status({**STEP_1, "phase": "Paused", "held": "RolloutPaused"}),
            status({**STEP_1, "phase": "Paused", "held": "RolloutPaused", "message": "other words"}),
            [],
        ),
        (status(STEP_1), status(history=[PROMOTED]), [("Promoted", "version 2: all traffic, after version 1")]),
        (status(history=[PROMOTED]), status(history=[PROMOTED]), []),
        (
            status(history=[PROMOTED]),
            status(history=[PROMOTED, {"at": "u", "version": "3", "what": "Aborted"}]),
            [("RolloutAborted", "version 3: Aborted")],
        ),
    ],
)
def test_events_are_of_transitions(
    before: LoRAAdapterStatus, after: LoRAAdapterStatus, events: list[tuple[str, str]]
) -> None:
    assert said(before, after) == events


def test_aborts_and_promotions_count_once() -> None:
    one = {"version": "2", "entryHash": "x", "at": "t", "reason": "AnalysisFailed", "message": ""}
    before, after = status(), status(aborted=[one], history=[PROMOTED])
    assert (aborted(before, after), aborted(after, after)) == (["AnalysisFailed"], [])
    assert (promotions(before, after), promotions(after, after)) == (1, 0)
