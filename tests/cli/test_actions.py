"""What a verb's answer is taken for: by the words that the operator's own decisions use."""

import pytest

from lorafleet.cli.actions import Became, Result, exit_of, outcome, value
from lorafleet.cli.outcome import Exit
from lorafleet.cli.seen import adapter
from tests.cli import objects
from tests.rollout.worlds import Cluster, spec


def became(handled: str, message: str) -> Became:
    item = objects.adapter(lastHandledAction=handled, actionMessage=message)
    result = outcome(adapter(item), handled, arrived=True)
    assert result is not None
    return result.became


@pytest.mark.parametrize(
    "verb", ["promote", "promote-full", "pause", "resume", "abort", "retry", "rollback", "nonsense"]
)
def test_what_the_operator_refuses_is_refused(verb: str) -> None:
    world = Cluster(spec("1.0"))
    world.settle()
    world.action = value(verb)
    world.reconcile()
    assert world.status.last_handled_action == world.action
    assert became(world.action, world.status.action_message or "") is Became.REFUSED, world.status.action_message


def test_what_the_operator_does_is_done() -> None:
    world = Cluster(spec("1.0"))
    world.settle()
    world.spec = spec("1.0", "1.1", rollout={"steps": [{"weight": 5, "pause": {}}]})
    world.settle()
    for verb in ("pause", "resume", "abort", "retry"):
        world.action = value(verb)
        world.reconcile()
        assert became(world.action, world.status.action_message or "") is Became.DONE, world.status.action_message


def test_another_value_is_a_later_one_only_once_ours_was_seen() -> None:
    item = objects.adapter()
    item["metadata"]["annotations"] = {"lorafleet.dev/action": "abort@x"}
    assert outcome(adapter(item), "promote@y", arrived=False) is None
    result = outcome(adapter(item), "promote@y", arrived=True)
    assert result is not None and result.became is Became.SUPERSEDED


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([Became.DONE, Became.ASKED], Exit.OK),
        ([Became.DONE, Became.UNANSWERED], Exit.TIMEOUT),
        ([Became.UNANSWERED, Became.REFUSED], Exit.NO),
        ([Became.GONE], Exit.NO),
        ([Became.SUPERSEDED], Exit.NO),
    ],
)
def test_one_refusal_is_the_exit_code_of_all(results: list[Became], code: Exit) -> None:
    assert exit_of([Result("a", "promote@x", became, "") for became in results]) is code


def test_two_values_of_a_verb_are_never_the_same() -> None:
    assert value("promote") != value("promote")
    assert value("rollback", "1.0").startswith("rollback:1.0@")
