"""What a person asks for, each in one test; every request gets an answer and is handled once."""

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.rollout.observed import Failed
from lorafleet.rollout.verbs import Action, parse
from tests.rollout.test_steps import begun, rules, served
from tests.rollout.worlds import Cluster, spec

BY_HAND = [{"weight": 5, "pause": {}}, {"weight": 50, "pause": "10m"}]


def replaced_by_two(**more: object) -> Cluster:
    """Version 1 served, and 2 serves."""
    cluster = Cluster(spec("1", "2", active="1", rollout=rules([], **more)))
    cluster.settle()
    cluster.wait(60)
    cluster.spec = spec("1", "2", rollout=rules([], **more))
    cluster.settle()
    cluster.wait(60)
    cluster.settle()
    assert cluster.serving() == {"2": 100}
    return cluster


@pytest.mark.parametrize(
    ("value", "action"),
    [
        ("promote@17", Action("promote")),
        ("promote", Action("promote")),
        ("rollback:1.2.0@2026-01-01T00:00:00Z", Action("rollback", "1.2.0")),
        ("rollback@a@b", Action("rollback@a")),
        ("@x", Action("")),
    ],
)
def test_an_action_is_a_verb_an_argument_and_a_token(value: str, action: Action) -> None:
    assert parse(value) == action


def test_a_pause_without_a_time_waits_for_promote() -> None:
    cluster = begun(BY_HAND)
    assert (cluster.rollout.phase, cluster.rollout.held) == ("Paused", "WaitingForPromotion")
    assert cluster.condition("Reconciling") == ("True", "WaitingForPromotion")
    cluster.wait(86400)
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}
    cluster.act("promote")
    assert cluster.serving() == {"1": 50, "2": 50}


def test_promote_ends_a_timed_step_as_well() -> None:
    cluster = begun()
    assert "next step" in cluster.act("promote")
    assert cluster.serving() == {"1": 75, "2": 25}


def test_promote_at_the_last_step_gives_all() -> None:
    cluster = begun([{"weight": 50, "pause": {}}])
    cluster.act("promote")
    assert cluster.serving() == {"2": 100}


def test_a_verb_is_handled_once() -> None:
    cluster = begun(BY_HAND)
    cluster.act("promote")
    handled = cluster.status.last_handled_action
    assert handled == cluster.action
    cluster.settle()
    assert cluster.serving() == {"1": 50, "2": 50}, "the annotation stays and is not acted on again"


def test_promote_full_gives_all_at_once() -> None:
    cluster = begun()
    assert "all traffic" in cluster.act("promote-full")
    assert cluster.serving() == {"2": 100}


def test_promote_full_of_a_version_that_is_not_loaded_waits_for_that_only() -> None:
    cluster = Cluster(spec("1", rollout=rules()))
    cluster.settle()
    cluster.spec = spec("1", "2", rollout=rules())
    cluster.reconcile()
    cluster.act("promote-full")
    assert cluster.serving() == {"1": 100}
    cluster.settle()
    assert cluster.serving() == {"2": 100}


def test_promote_while_an_engine_loads_is_refused_with_the_reason() -> None:
    cluster = begun()
    cluster.engines["e0"].clear()
    assert cluster.act("promote").startswith("promote was refused: the shares stay as they are: version 2 is loaded on")
    assert cluster.serving() == {"1": 95, "2": 5}


def test_pause_holds_the_clock_and_resume_goes_on_where_it_was() -> None:
    cluster = begun()
    cluster.wait(300)
    assert "paused at 5 %" in cluster.act("pause")
    assert cluster.condition("Reconciling") == ("True", "RolloutPaused")
    cluster.wait(86400)
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}
    cluster.act("resume")
    cluster.wait(299)
    cluster.reconcile()
    assert cluster.serving() == {"1": 95, "2": 5}
    cluster.wait(1)
    cluster.reconcile()
    assert cluster.serving() == {"1": 75, "2": 25}


@pytest.mark.parametrize("verb", ["promote", "promote-full"])
def test_pause_beats_promote(verb: str) -> None:
    cluster = begun()
    cluster.act("pause")
    cluster.wait(1)
    assert "resume it first" in cluster.act(verb)
    assert cluster.serving() == {"1": 95, "2": 5}


def test_abort_beats_pause() -> None:
    cluster = begun()
    cluster.act("pause")
    cluster.wait(1)
    cluster.act("abort")
    assert cluster.serving() == {"1": 100}
    assert cluster.status.rollout is None


def test_an_aborted_version_never_returns_by_itself() -> None:
    cluster = begun()
    cluster.act("abort")
    assert cluster.serving() == {"1": 100}, "in the very same status"
    assert cluster.condition("Stalled") == ("True", "RolloutAborted")
    assert cluster.condition("Available") == ("True", "Serving")
    assert "append a new version, or kubectl lorafleet retry" in cluster.message()
    cluster.wait(86400)
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert served("2") not in cluster.engines["e0"]
    cluster.spec = spec("1", "2", active="1", rollout=rules())
    cluster.settle()
    assert cluster.condition("Ready") == ("True", "Serving")
    cluster.spec = spec("1", "2", rollout=rules())
    cluster.settle()
    assert cluster.serving() == {"1": 100}, "not by naming it again either"


def test_retry_tries_an_aborted_version_from_its_first_step() -> None:
    cluster = begun()
    cluster.wait(600)
    cluster.reconcile()
    cluster.act("abort")
    cluster.wait(1)
    assert "tried again" in cluster.act("retry")
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}
    assert ("Retried", "2") in cluster.history()


def test_another_entry_of_the_same_name_is_another_version() -> None:
    cluster = begun()
    cluster.act("abort")
    cluster.spec = spec("1", rollout=rules())
    cluster.settle()
    cluster.wait(31)
    cluster.settle()
    other = spec("1", "2", rollout=rules()).versions[1].model_copy(update={"digest": "sha256:" + "a" * 64})
    cluster.spec = cluster.spec.model_copy(update={"versions": (*cluster.spec.versions, other)})
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}
    assert cluster.status.aborted == ()


def test_retry_fetches_a_refused_version_again() -> None:
    cluster = Cluster(spec("1"), bad={"1": Failed(Reason.RANK_TOO_HIGH, "rank", retry=False)})
    cluster.settle()
    cluster.bad.clear()
    assert "again" in cluster.act("retry")
    cluster.settle()
    assert cluster.serving() == {"1": 100}


def test_rollback_of_a_rollout_is_its_abortion() -> None:
    cluster = begun()
    cluster.act("rollback")
    assert cluster.serving() == {"1": 100}
    assert cluster.condition("Stalled") == ("True", "RolloutAborted")


def test_rollback_goes_to_the_version_that_served_before() -> None:
    cluster = replaced_by_two()
    answer = cluster.act("rollback")
    assert "as soon as it is loaded; version 2 serves until then" in answer
    assert cluster.serving() == {"2": 100}, "the present one serves until the other is loaded"
    cluster.load()
    cluster.reconcile()
    assert cluster.serving() == {"1": 100}
    assert cluster.status.stable_version == "1"
    assert cluster.condition("Stalled") == ("True", "RolledBack")
    assert "set activeVersion to 1 in Git" in cluster.message()


def test_rollback_to_a_kept_version_takes_one_decision() -> None:
    cluster = replaced_by_two(keepLoaded=1)
    assert "serves; version 2 is taken back" in cluster.act("rollback")
    assert cluster.serving() == {"1": 100}
    assert cluster.history()[-1] == ("RolledBack", "2")


def test_a_rolled_back_version_is_no_rollback_target() -> None:
    cluster = replaced_by_two(keepLoaded=1)
    cluster.act("rollback")
    cluster.wait(1)
    assert cluster.act("rollback").startswith("rollback was refused")
    cluster.wait(1)
    assert cluster.act("rollback:2").startswith("rollback was refused: version 2 has not served")
    assert cluster.serving() == {"1": 100}


def test_a_version_that_was_rolled_back_proves_itself_anew_when_it_is_retried() -> None:
    cluster = replaced_by_two(keepLoaded=1)
    cluster.act("rollback")
    cluster.spec = spec("1", "2", rollout=rules())
    cluster.act("retry")
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}


def test_rollback_names_an_older_version_during_a_rollout() -> None:
    cluster = replaced_by_two(keepLoaded=1)
    cluster.spec = spec("1", "2", "3", rollout=rules(keepLoaded=1))
    cluster.settle()
    assert cluster.serving() == {"2": 95, "3": 5}
    cluster.act("rollback:1")
    assert cluster.serving() == {"1": 100}
    assert {one.version for one in cluster.status.aborted} == {"2", "3"}


def test_rollback_to_the_version_that_is_on_its_way_back_does_not_take_that_back() -> None:
    cluster = replaced_by_two()
    cluster.wait(31)
    cluster.settle()
    cluster.spec = spec("1", "2", active="1", rollout=rules([]))
    cluster.reconcile()
    assert cluster.rollout.version == "1"
    assert "version 2 is taken back" in cluster.act("rollback:1")
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert [one.version for one in cluster.status.aborted] == ["2"]
    assert cluster.condition("Ready") == ("True", "Serving")


def test_rollback_during_a_rollout_takes_the_new_versions_share_away_before_the_old_one_is_loaded() -> None:
    cluster = replaced_by_two()
    cluster.wait(31)
    cluster.spec = spec("1", "2", "3", rollout=rules())
    cluster.settle()
    assert cluster.serving() == {"2": 95, "3": 5}
    assert "version 2 serves until then" in cluster.act("rollback:1")
    assert cluster.serving() == {"2": 100}
    cluster.settle()
    assert cluster.serving() == {"1": 100}


@pytest.mark.parametrize(
    ("action", "why"),
    [
        ("promote", "no rollout is under way"),
        ("pause", "no rollout is under way"),
        ("resume", "no rollout is under way"),
        ("abort", "use rollback"),
        ("retry", "version 1 was not aborted and serves"),
        ("rollback", "no other version of spec.versions has served"),
        ("rollback:7", "version 7 has not served"),
        ("rollback:1", "version 1 serves already"),
        ("explode", "it is none of promote, promote-full, pause"),
        ("promote:2", "it takes no argument"),
        ("", "it is none of"),
    ],
)
def test_a_verb_that_does_nothing_says_why(action: str, why: str) -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    before = cluster.status
    answer = cluster.act(action)
    assert " was refused: " in answer
    assert why in answer
    assert cluster.status.last_handled_action == cluster.action
    assert cluster.serving() == {"1": 100}
    assert cluster.status.history == before.history


def test_resume_of_a_step_that_waits_for_a_person_names_promote() -> None:
    assert "promote ends the step" in begun(BY_HAND).act("resume")


def test_a_verb_is_refused_while_nothing_is_decided() -> None:
    cluster = begun()
    cluster.spec = spec("1", "2", rollout=rules(), suspend=True)
    assert "set spec.suspend to false first" in cluster.act("abort")
    cluster.spec = spec("1", "2", rollout=rules())
    cluster.settle()
    assert cluster.serving() == {"1": 95, "2": 5}, "and not acted on later"


def test_a_verb_that_is_older_than_the_status_is_not_acted_on() -> None:
    cluster = Cluster(spec("1"), action="rollback@1")
    cluster.settle()
    assert cluster.status.last_handled_action == "rollback@1"
    assert "repeat it" in (cluster.status.action_message or "")


def test_abort_is_about_the_version_that_a_person_saw() -> None:
    cluster = begun()
    cluster.spec = spec("1", "2", "3", rollout=rules())
    cluster.act("abort")
    assert [one.version for one in cluster.status.aborted] == ["2"]
    cluster.settle()
    assert cluster.serving() == {"1": 95, "3": 5}


def test_a_history_is_the_last_twenty_things() -> None:
    cluster = begun()
    for number in range(30):
        cluster.wait(1)
        cluster.act("abort" if number % 2 == 0 else "retry")
        cluster.settle(3)
    assert len(cluster.status.history) == 20
    assert cluster.history()[-1][0] in ("Retried", "Started")
