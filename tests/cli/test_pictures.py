"""What the commands show, as tables of given objects. Pure: nothing here asks a cluster."""

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console, RenderableType
from rich.table import Table

from lorafleet.api.reasons import Reason
from lorafleet.cli import (
    durations,
    explain,
    explanation,
    fleetexplain,
    fleetpicture,
    history,
    listing,
    matrix,
    picture,
    seen,
    summary,
)
from lorafleet.cli.matrix import Cell
from lorafleet.cli.sentences import WORDS
from lorafleet.cli.terminal import put
from tests.cli import objects
from tests.cli.objects import NOW

ADAPTERS = """\
ADAPTER      FLEET   STABLE  TARGET  TRAFFIC                ROLLOUT                          ENGINES  ERRORS  READY                AGE
sql-lora     hi-moe  1.1.0   1.1.0   1.1.0 100%             –                                    2/2   0.12%  True                 3d
python-lora  hi-moe  1.1.0   1.2.0   1.1.0 75% · 1.2.0 25%  2/3 Progressing                      2/2   0.39%  RolloutProgressing   3d
python-lora  hi-moe  1.1.0   1.2.0   1.1.0 50% · 1.2.0 50%  3/3 Paused: WaitingForPromotion      2/2   0.39%  WaitingForPromotion  3d
python-lora  hi-moe  1.1.0   1.1.0   1.1.0 100%             1.2.0: AnalysisFailed                2/2   0.12%  RolloutAborted       3d
new-lora     hi-moe  –       1.2.0   –                      –                                      –       –  Unknown              3d
"""  # noqa: E501


def shown(*parts: RenderableType, width: int = 120) -> str:
    """Parts as a terminal shows them, without blanks at the ends of lines."""
    page = Console(file=io.StringIO(), width=width, highlight=False, emoji=False, markup=False, record=True)
    for part in parts:
        if isinstance(part, Table):
            put(page, part)
        else:
            page.print(part, soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in page.export_text().splitlines())


def status(item: dict[str, Any], width: int = 120, seconds: float = 0) -> str:
    """The picture of an adapter, so many seconds after NOW."""
    return shown(*picture.adapter(seen.adapter(item), NOW + timedelta(seconds=seconds), width), width=width)


def lines(text: str, *beginnings: str) -> list[str]:
    """The lines that begin so."""
    return [line for line in text.splitlines() if line.startswith(beginnings)]


def test_a_rollout_is_shown_with_steps_weights_and_the_last_judgement() -> None:
    assert (
        status(objects.rolling())
        == """\
python-lora  1.1.0 → 1.2.0  RolloutProgressing  fleet hi-moe, namespace specialists

rollout of 1.2.0  Progressing, begun 25m ago
✓    5%  for 10m
▶   25%  for 30m, 16m left
·   50%  waits for promote
·  100%  promoted

VERSION  WEIGHT                     ENGINES  REQUESTS  ERRORS  LATENCY  PROBED  FIRST TOKEN  USED  PHASE
1.1.0    ███████████████░░░░░  75%      2/2   120,331   0.12%   400 ms     2/2        50 ms    2s  Loaded, stable
1.2.0    █████░░░░░░░░░░░░░░░  25%      2/2     4,127   0.39%   430 ms     2/2        54 ms    2s  Loaded

judgement Passed 20s ago, of 512 requests
MEASURE        VALUE  PASSES   VERDICT  FOUND
errorRate     0.0039  <= 0.05  Passed   2 of 512 requests failed; between 0.1% and 1.4% with 95% confidence
latencyRatio   1.049  <= 1.3   Passed   430 ms on average, 410 ms on stable

CONDITION    STATUS  REASON              SINCE  MESSAGE
Ready        False   RolloutProgressing  4m     version 1.2.0 has 25% of the requests at step 2 of 3
Reconciling  True    RolloutProgressing  4m
Stalled      False   Settled             4m
Available    True    Serving             4m     version 1.1.0 serves
"""
    )


def test_the_time_that_is_left_of_a_step_runs_only_while_the_step_counts() -> None:
    def left(seconds: float, **rollout: Any) -> str:
        return lines(status(objects.rolling(**rollout), seconds=seconds), "▶")[0].partition(", ")[2]

    assert left(0) == "16m left"
    assert left(59) == "15m1s left"
    assert left(2000) == "which are over"
    assert left(59, stepSince=None, stepDone=300, held="EngineRestarted") == "25m left, and does not count now"
    assert left(59, stepSince=None, stepDone=300, phase="Paused", paused=True) == "paused after 5m"


def test_a_step_that_waits_for_a_person_says_so() -> None:
    text = status(objects.waiting())
    assert lines(text, "▶") == ["▶   50%  waits for promote"]
    assert lines(text, "held") == [
        "held WaitingForPromotion: version 1.2.0 stays at 50 % until a person promotes it: kubectl lorafleet promote"
    ]


def test_a_version_that_was_taken_back_says_why() -> None:
    text = status(objects.aborted())
    assert "1.2.0 was taken back at 2026-01-02 11:58:00: AnalysisFailed\n  61 of 480 requests failed" in text
    assert lines(text, "python-lora") == ["python-lora  1.1.0  RolloutAborted  fleet hi-moe, namespace specialists"]
    assert "rollout of" not in text


def test_a_narrow_terminal_gets_fewer_columns_and_no_cut_words() -> None:
    heading = lines(status(objects.rolling(), width=100), "VERSION")[0]
    assert heading.split() == ["VERSION", "WEIGHT", "ENGINES", "REQUESTS", "ERRORS", "LATENCY", "PHASE"]
    table = lines(status(objects.aborted(), width=80), "1.", "Ready", "   ")
    assert max(map(len, table)) <= 80


@pytest.mark.parametrize(("weight", "full"), [(0, 0), (1, 1), (5, 1), (50, 5), (95, 9), (99, 9), (100, 10)])
def test_a_bar_is_empty_or_full_only_for_nothing_and_all(weight: int, full: int) -> None:
    assert picture.bar(weight, 10) == "█" * full + "░" * (10 - full)


def test_an_adapter_that_nobody_looked_at_is_unknown() -> None:
    found = seen.adapter(objects.fresh())
    assert summary.ready(found) == "Unknown"
    assert status(objects.fresh()) == "new-lora  nothing → 1.2.0  Unknown  fleet hi-moe, namespace specialists\n"


def test_a_table_of_adapters_has_what_serves_and_how() -> None:
    found = [objects.serving("sql-lora"), objects.rolling(), objects.waiting(), objects.aborted(), objects.fresh()]
    assert shown(listing.adapters([seen.adapter(item) for item in found], NOW)) == ADAPTERS


@pytest.mark.parametrize(
    ("item", "colour"),
    [
        (objects.serving(), "green"),
        (objects.waiting(), "yellow"),
        (objects.aborted(), "red"),
        (objects.fresh(), "yellow"),
    ],
)
def test_red_is_what_needs_a_person(item: dict[str, Any], colour: str) -> None:
    assert listing.coloured(seen.adapter(item)).style == colour


def test_fixed_shares_are_called_a_b() -> None:
    item = objects.rolling()
    del item["status"]["rollout"]
    item["spec"]["traffic"] = [{"version": "1.1.0", "weight": 75}, {"version": "1.2.0", "weight": 25}]
    assert summary.rollout(seen.adapter(item)) == "A/B"


def test_a_line_for_a_log_has_all_of_it() -> None:
    assert summary.line(seen.adapter(objects.rolling())) == (
        "specialists/python-lora  stable=1.1.0  target=1.2.0  traffic=1.1.0 75% · 1.2.0 25%  rollout=2/3 Progressing"
        "  engines=2/2  errors=0.39%  ready=RolloutProgressing  version 1.2.0 has 25% of the requests at step 2 of 3"
    )


def test_a_fleet_is_shown_with_what_is_wrong_with_its_engines() -> None:
    ill = objects.engine("vllm-1", False, 0, reason="LoRADisabled", message="started without --enable-lora; add it")
    late = objects.engine("vllm-2", catchingUp=True)
    found = seen.fleet(objects.fleet(objects.engine("vllm-0"), ill, late))
    text = shown(*fleetpicture.fleet(found, NOW))
    assert lines(text, "hi-moe", "adapters", "places", "volume", "last scrub", "vllm") == [
        "hi-moe  2 of 3 engines  True  namespace specialists",
        "adapters    4, 1 rolling out",
        "places      5 of 32 versions that an engine keeps",
        "volume      3.0 GiB used, 97.0 GiB free",
        "last scrub  2h ago, 0 damaged",
        "vllm-0  True              2       2  0.32.0",
        "vllm-1  False             0       2  0.32.0  LoRADisabled  started without --enable-lora; add it",
        "vllm-2  catching up       2       2  0.32.0",
    ]


def test_history_is_told_in_its_order() -> None:
    assert (
        shown(history.history(seen.adapter(objects.aborted()), NOW))
        == """\
AT                   AGE  VERSION  WHAT     MESSAGE
2026-01-01 11:00:00   1d  1.1.0    Served
2026-01-02 11:35:00  25m  1.2.0    Started
2026-01-02 11:58:00   2m  1.2.0    Aborted  61 of 480 requests failed
"""
    )


def explained(item: dict[str, Any]) -> explanation.Explanation:
    return explain.explain(seen.adapter(item), NOW, "lorafleet", " -n x")


def test_an_explanation_says_where_it_is_why_and_what_to_do() -> None:
    found = explained(objects.waiting())
    assert found.sentences == (
        "python-lora of fleet hi-moe serves 1.1.0 with 50% and 1.2.0 with 50% of the requests.",
        "1.2.0 has been on its way to all requests for 25m; it is at step 3 of 3, 50%, and 100% comes next.",
        "1.2.0 had 4,127 requests; 0.39% of the latest failed.",
        "The step waits for a person.",
    )
    assert [move.command for move in found.moves] == [
        "lorafleet promote python-lora -n x",
        "lorafleet promote python-lora -n x --full",
        "lorafleet abort python-lora -n x",
    ]


def test_an_explanation_of_what_was_taken_back_names_each_way_on_once() -> None:
    found = explained(objects.aborted())
    assert found.reasons == ("AnalysisFailed", "RolloutAborted")
    commands = [move.command for move in found.moves]
    assert "lorafleet retry python-lora -n x" in commands
    assert len(commands) == len(set(commands))
    assert len(found.said) == 1


def test_an_explanation_of_what_serves_asks_for_nothing() -> None:
    found = explained(objects.serving())
    assert found.sentences == (
        "python-lora of fleet hi-moe serves 1.1.0 to all requests.",
        "The active version serves all requests, and nothing is to be done.",
    )
    assert (found.said, found.moves) == ((), ())


def test_an_explanation_says_when_the_operator_is_behind() -> None:
    item = objects.serving()
    item["metadata"]["generation"] = 4
    assert "The spec has changed since the operator last looked at it." in explained(item).sentences
    assert "The operator has said nothing of it yet." in explained(objects.fresh()).sentences


def test_a_reason_of_a_later_release_is_named() -> None:
    item = objects.serving()
    item["status"]["conditions"] = objects.conditions("stalled", "SomethingNew", "as it is said")
    found = explained(item)
    assert "This release of the command does not know the reason SomethingNew." in found.sentences
    assert found.said == ("as it is said",)


def test_an_explanation_names_what_a_person_should_look_at_though_it_serves() -> None:
    item = objects.serving()
    checked = {"type": "Checked", "status": "False", "reason": "HasNoEffect", "message": "1.1.0: all of B is zero"}
    item["status"]["conditions"].append(item["status"]["conditions"][0] | checked)
    found = explained(item)
    assert found.reasons == ("Serving", "HasNoEffect")
    assert "The adapter changes nothing: the base model would answer the same." in found.sentences
    assert found.said == ("1.1.0: all of B is zero",)


def explained_fleet(item: dict[str, Any]) -> explanation.Explanation:
    return fleetexplain.explain(seen.fleet(item), "lorafleet", " -n x")


def test_an_explanation_of_a_healthy_fleet_asks_for_nothing() -> None:
    found = explained_fleet(objects.fleet(objects.engine("vllm-0"), objects.engine("vllm-1")))
    assert found.sentences == (
        "2 of 2 engines of hi-moe can be used for its 4 adapters, of which one rolls out now.",
        "Every engine can be used, and nothing is to be done.",
    )
    assert (found.reasons, found.said, found.moves) == (("EnginesHealthy",), (), ())
    assert explanation.document(found)["fleet"] == "hi-moe"


def test_an_explanation_of_a_fleet_says_what_each_ill_engine_has() -> None:
    rank = {"ready": False, "reason": "LoRADisabled", "message": "engine vllm-1 was started without --enable-lora"}
    hung = {"ready": False, "reason": "Hung", "message": "engine vllm-2 does not answer"}
    engines = [objects.engine("vllm-0"), objects.engine("vllm-1", **rank), objects.engine("vllm-2", **hung)]
    said = f"1 of 3 engines are usable; {rank['message']}"
    found = explained_fleet(objects.fleet(*engines, conditions=objects.conditions("stalled", "EnginesUnhealthy", said)))
    assert found.reasons == ("EnginesUnhealthy", "LoRADisabled", "Hung")
    assert found.said == (said, "vllm-2: engine vllm-2 does not answer")
    assert [move.command for move in found.moves] == ["lorafleet status fleet/hi-moe -n x", "kubectl get pods -n x"]


def test_an_explanation_of_a_fleet_says_what_its_adapters_wait_for() -> None:
    behind = objects.engine("vllm-1", loaded=3, wanted=5, catchingUp=True)
    status = {
        "memory": {"maxCpuLoras": 5, "wanted": 5},
        "routers": 0,
        "pendingRemovals": [{"servedName": "a/1-0123456789ab", "since": NOW.isoformat()}],
    }
    sentences = explained_fleet(objects.fleet(objects.engine("vllm-0"), behind, **status)).sentences
    assert "vllm-1 is still loading (3 of 5) and gets no request until then." in sentences
    assert "All 5 places of an engine are taken (--max-cpu-loras), so new versions wait." in sentences
    assert any(each.startswith("No router answered") for each in sentences)
    assert any(each.startswith("1 version of adapters that are gone") for each in sentences)


@pytest.mark.parametrize("reason", sorted(WORDS))
def test_no_command_about_a_fleet_is_about_an_adapter(reason: str) -> None:
    item = objects.fleet(conditions=objects.conditions("stalled", reason, "as it is said"))
    for move in explained_fleet(item).moves:
        assert "{" not in move.command
        assert "loraadapter " not in move.command


def test_each_reason_has_a_sentence_and_no_word_that_is_none() -> None:
    assert set(WORDS) == {reason.value for reason in Reason}


@pytest.mark.parametrize("reason", sorted(WORDS))
def test_each_sentence_ends_and_each_command_can_be_typed(reason: str) -> None:
    words = WORDS[reason]
    assert words.sentence.endswith(".")
    for command, why in words.commands:
        typed = command.format(adapter="a", fleet="f", lorafleet="lorafleet", n=" -n x")
        assert "{" not in typed
        assert typed.split()[0] in ("kubectl", "lorafleet")
        assert why


def cells(item: dict[str, Any], *engines: dict[str, Any]) -> dict[str, str]:
    found = matrix.rows(seen.fleet(objects.fleet(*engines)), [seen.adapter(item)])
    return {row.version: "".join(row.cells) for row in found}


def loaded(version: str, number: int, of: int, **more: Any) -> dict[str, Any]:
    """A rollout whose version of that name so many engines have."""
    item = objects.rolling()
    for one in item["status"]["versions"]:
        one["readyEngines"] = of
        one["loadedEngines"] = number if one["name"] == version else of
        one |= more if one["name"] == version else {}
    return item


def test_the_matrix_says_what_the_statuses_prove() -> None:
    lacking = objects.engine("b", missing=["python-lora/1.2.0-0123456789ab"])
    found = cells(loaded("1.2.0", 1, 2), objects.engine("a"), lacking, objects.engine("c", ready=False))
    assert found == {"1.1.0": "●●–", "1.2.0": "●○–"}


def test_the_matrix_does_not_guess_which_engine_lacks_a_version() -> None:
    item = loaded("1.2.0", 1, 2)
    item["status"]["traffic"] = objects.traffic(v1_1_0=100)
    assert cells(item, objects.engine("a"), objects.engine("b"))["1.2.0"] == "??"
    late = objects.engine("b", catchingUp=True)
    assert cells(loaded("1.2.0", 1, 2), objects.engine("a"), late)["1.2.0"] == "●?"


def test_the_matrix_wants_nothing_of_a_version_on_its_way_out() -> None:
    assert cells(loaded("1.2.0", 2, 2, phase="Draining"), objects.engine("a"), objects.engine("b"))["1.2.0"] == "––"
    assert "1.2.0" not in cells(loaded("1.2.0", 0, 2, phase="Published"), objects.engine("a"), objects.engine("b"))
    assert cells(loaded("1.2.0", 0, 2, phase="Loading"), objects.engine("a"), objects.engine("b"))["1.2.0"] == "○○"


def test_a_large_fleet_is_summarised_unless_all_of_it_is_asked_for() -> None:
    missing = {"missing": ["python-lora/1.2.0-0123456789ab"]}
    engines = [objects.engine(f"vllm-{number}", **(missing if number > 15 else {})) for number in range(20)]
    fleet = seen.fleet(objects.fleet(*engines))
    rows = matrix.rows(fleet, [seen.adapter(loaded("1.2.0", 16, 20))])
    text = shown(*matrix.page(fleet, rows))
    assert lines(text, "python-lora", "1 of") == [
        "python-lora  1.2.0       25%   16/20  vllm-16, vllm-17, vllm-18 and 1 more",
        "1 of 2 versions are loaded wherever they should be; --all shows all",
    ]
    everything = shown(*matrix.page(fleet, rows, everything=True))
    assert everything.count(Cell.MISSING) == 4 + 1
    assert everything.count(Cell.LOADED) == 36 + 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0.4, "0s"), (59, "59s"), (61, "1m1s"), (960, "16m"), (3660, "1h1m"), (90000, "1d1h"), (86401, "1d")],
)
def test_lengths_have_their_two_largest_units(seconds: float, text: str) -> None:
    assert durations.length(seconds) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, ""), (0.0, "0%"), (0.00001, "<0.01%"), (0.0012, "0.12%"), (0.042, "4.2%"), (0.127, "13%"), (1.0, "100%")],
)
def test_shares_have_as_many_digits_as_tell_something(share: float | None, text: str) -> None:
    assert durations.percent(share) == text


def test_what_cannot_be_read_is_said_and_the_rest_is_shown() -> None:
    item = objects.serving()
    item["spec"]["rollout"]["steps"] = "of another release"
    found = seen.adapter(item)
    assert found.fleet == "hi-moe"
    assert "1.1.0    ████" in status(item)
    assert "spec.rollout.steps is not what this release of lorafleet knows" in status(item)
    broken = objects.serving()
    broken["status"]["traffic"] = "of another release"
    assert "status.traffic is not what this release" in status(broken)


def test_texts_of_others_do_not_steer_the_terminal() -> None:
    item = objects.waiting()
    item["status"]["rollout"]["message"] = "\x1b[2Jgone"
    item["status"]["actionMessage"] = "\x1b[2Jgone"
    item["status"]["conditions"][0]["message"] = "\x1b[2Jgone"
    assert "\x1b[2J" not in status(item)
    assert "\x1b[2J" not in shown(*explanation.page(explained(item)))
