"""The verdict on a version from counts and answers, as tables and as properties of the interval."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.api.rollout import Analysis
from lorafleet.rollout.evidence import Counts, Record
from lorafleet.rollout.judge import judge, judges, wilson
from lorafleet.rollout.observed import QueryResult
from lorafleet.rollout.queries import render
from tests.rollout.worlds import START


def rules(**more: object) -> Analysis:
    return Analysis.model_validate({"minRequests": 50, **more})


def counts(requests: int, errors: int = 0, refused: int = 0, ms: float = 100.0) -> Counts:
    return Counts(requests, errors, refused, requests - errors, (requests - errors) * ms)


@pytest.mark.parametrize(
    ("requests", "errors", "refused", "verdict"),
    [
        (0, 0, 0, "Undecided"),
        (49, 0, 0, "Undecided"),
        (49, 49, 0, "Undecided"),  # fewer than minRequests decide nothing, whatever they are
        (50, 0, 0, "Passed"),
        (100, 5, 0, "Passed"),
        (100, 8, 0, "Undecided"),  # above the bound, and may be chance
        (100, 30, 0, "Failed"),
        (10_000, 560, 0, "Failed"),
        (10_000, 520, 0, "Undecided"),
        (100, 0, 60, "Undecided"),  # the client's own mistakes are no requests to judge by
        (200, 0, 100, "Passed"),
    ],
)
def test_an_error_rate_passes_fails_or_decides_nothing(requests: int, errors: int, refused: int, verdict: str) -> None:
    found = judge(rules(maxErrorRate=0.05), counts(requests, errors, refused), Counts(), {}, START)
    assert found.verdict == verdict
    assert found.requests == requests - refused
    assert found.measures[0].name == "errorRate"
    assert found.message


def test_the_clients_own_mistakes_do_not_count_against_a_version() -> None:
    found = judge(rules(maxErrorRate=0.05), counts(500, errors=0, refused=400), Counts(), {}, START)
    assert found.verdict == "Passed"


@pytest.mark.parametrize(
    ("mine", "other", "verdict"),
    [
        (counts(50, ms=129), counts(50, ms=100), "Passed"),
        (counts(50, ms=131), counts(50, ms=100), "Failed"),
        (counts(49, ms=900), counts(50, ms=100), "Undecided"),
        (counts(50, ms=900), counts(49, ms=100), "Undecided"),
        (counts(50, ms=900), counts(50, ms=0), "Undecided"),
    ],
)
def test_latency_is_judged_against_the_stable_version_over_the_same_time(
    mine: Counts, other: Counts, verdict: str
) -> None:
    assert judge(rules(maxLatencyRatio=1.3), mine, other, {}, START).verdict == verdict


def query(value: float | None, error: str = "", age: float = 0.0) -> dict[str, QueryResult]:
    return {"q": QueryResult(START - timedelta(seconds=age), value, error)}


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        (query(5.0), "Passed"),
        (query(1.0), "Passed"),
        (query(0.9), "Failed"),
        (query(9.1), "Failed"),
        (query(float("inf")), "Failed"),
        (query(float("nan")), "Undecided"),
        (query(None, "no data"), "Undecided"),
        (query(None, "connection refused"), "Undecided"),
        ({}, "Undecided"),
        (query(99.0, age=1), "Undecided"),
    ],
)
def test_a_query_is_within_its_bounds_or_not_or_has_no_answer(answers: dict[str, QueryResult], verdict: str) -> None:
    analysis = rules(queries=[{"name": "q", "query": "x", "min": 1, "max": 9}])
    found = judge(analysis, Counts(), Counts(), answers, START)
    assert found.verdict == verdict
    assert found.measures[0].bound == ">= 1 and <= 9"
    found.measures[0].to_json()


@pytest.mark.parametrize(
    ("errors", "value", "verdict"),
    [(0, 1.0, "Passed"), (50, 1.0, "Failed"), (0, 9.0, "Failed"), (0, None, "Undecided"), (50, None, "Failed")],
)
def test_one_failed_measure_fails_and_one_undecided_one_leaves_it_open(
    errors: int, value: float | None, verdict: str
) -> None:
    analysis = rules(maxErrorRate=0.05, queries=[{"name": "q", "query": "x", "max": 2}])
    assert judge(analysis, counts(100, errors), Counts(), query(value), START).verdict == verdict


def test_an_analysis_without_any_bound_judges_nothing() -> None:
    assert judges(rules()) is None
    assert judges(None) is None
    assert judges(rules(maxErrorRate=0.0)) is not None


@given(requests=st.integers(1, 10**6), data=st.data())
def test_the_interval_contains_the_rate_and_narrows_with_more_requests(requests: int, data: st.DataObject) -> None:
    errors = data.draw(st.integers(0, requests))
    low, high = wilson(errors, requests)
    assert 0 <= low <= errors / requests + 1e-9
    assert errors / requests - 1e-9 <= high <= 1
    more = wilson(errors * 10, requests * 10)
    assert more[1] - more[0] <= high - low + 1e-9


def test_the_interval_is_the_published_one() -> None:
    low, high = wilson(4, 20)  # Wilson (1927), as in Agresti and Coull (1998)
    assert (round(low, 3), round(high, 3)) == (0.081, 0.416)
    assert wilson(0, 0) == (0.0, 1.0)


def test_a_record_counts_from_the_last_look_before_a_moment() -> None:
    at = [START + timedelta(seconds=10 * number) for number in range(4)]
    record = Record(tuple(zip(at, (counts(5), counts(15), counts(40), counts(100)), strict=True)))
    assert record.since(at[1] + timedelta(seconds=5)).requests == 85
    assert record.since(at[3]).requests == 0
    assert record.since(START - timedelta(seconds=1)).requests == 95
    assert Record().since(START) == Counts()


@pytest.mark.parametrize(
    ("value", "promql"),
    [
        ("1.2.0", 'up{version="1.2.0"} > {{other}}'),
        ('"} or vector(1) #', 'up{version="\\"} or vector(1) #"} > {{other}}'),
        ("a\\", 'up{version="a\\\\"} > {{other}}'),
        ("a\nb", 'up{version="a\\nb"} > {{other}}'),
    ],
)
def test_a_value_never_ends_the_literal_that_it_stands_in(value: str, promql: str) -> None:
    assert render('up{version="{{version}}"} > {{other}}', {"version": value}) == promql
    assert render("{{ version }}", {"version": "1"}) == "1"
