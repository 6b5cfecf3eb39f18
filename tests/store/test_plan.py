"""A report always fits its 4,096 bytes and always says what matters."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import RETRIED, ArtifactError
from lorafleet.store.plan import (
    MAX_ITEMS,
    MAX_REPORT_BYTES,
    ItemResult,
    SyncPlan,
    SyncReport,
    complete,
    encode,
    failed,
)

_TEXT = st.text(st.characters(), max_size=20).flatmap(lambda text: st.integers(0, 300).map(lambda n: text * n))
_GOOD = st.builds(
    ItemResult,
    i=st.integers(0, 9),
    id=st.integers(1, 2**53),
    digest=st.just("sha256:" + "a" * 64),
    served_name=st.integers(1, 63).map(lambda n: f"{'a' * n}/{'1' * n}-{'0' * 12}"),
    rank=st.integers(1, 4096),
    target_modules=st.lists(st.text("abcdefgh_", min_size=1, max_size=80), max_size=40).map(tuple),
    size_bytes=st.integers(0, 2**46),
    dtype=st.sampled_from(["F16", "BF16", "BF16+F16+F32+F64"]),
)
_BAD = st.builds(
    ItemResult,
    i=st.integers(0, 9),
    reason=st.sampled_from([reason.value for reason in Reason]),
    message=_TEXT,
    retry=st.booleans(),
)


@settings(max_examples=300)
@given(st.lists(_GOOD | _BAD, max_size=10).map(tuple))
def test_ten_results_always_fit_and_keep_their_facts(results: tuple[ItemResult, ...]) -> None:
    data = encode(SyncReport(results=results))
    assert len(data) <= MAX_REPORT_BYTES
    found = SyncReport.model_validate_json(data.decode())
    cut = {"message": None, "target_modules": None, "more_target_modules": None}
    assert [one.model_copy(update=cut) for one in found.results] == [one.model_copy(update=cut) for one in results]
    for one, other in zip(found.results, results, strict=True):
        whole = other.target_modules or ()
        kept = one.target_modules or ()
        assert kept == whole[: len(kept)]
        assert len(kept) + (one.more_target_modules or 0) == len(whole)
        assert (one.message is None) == (other.message is None)


def test_nothing_is_cut_that_fits() -> None:
    results = (
        ItemResult(i=0, id=1, target_modules=("q_proj", "v_proj")),
        ItemResult(i=1, reason="VolumeFull", message='"so" \\ é…', retry=True),
    )
    assert SyncReport.model_validate_json(encode(SyncReport(results=results))).results == results


def test_messages_are_cut_before_modules() -> None:
    modules = tuple(f"module_{n}" for n in range(20))
    results = (ItemResult(i=0, target_modules=modules), ItemResult(i=1, reason="VolumeError", message="x" * 9000))
    found = SyncReport.model_validate_json(encode(SyncReport(results=results)))
    assert found.results[0].target_modules == modules
    assert (found.results[1].message or "").endswith("…")


@given(st.text(st.characters()))
def test_any_text_of_an_error_fits(text: str) -> None:
    data = encode(SyncReport(error=text * 5000))
    assert len(data) <= MAX_REPORT_BYTES
    assert "\\u0000" not in data.decode()
    json.loads(data)


def test_a_report_is_compact_camel_case_without_empty_fields() -> None:
    report = SyncReport(results=(ItemResult(i=0, served_name="a/1-0123456789ab", size_bytes=3),))
    text = '{"schemaVersion":2,"results":[{"i":0,"servedName":"a/1-0123456789ab","sizeBytes":3}]}'
    assert encode(report).decode() == text


def _plan(**changes: Any) -> dict[str, Any]:
    items = [
        {"adapter": "a", "version": "1", "source": {"volume": {"path": "x"}}, "claim": "/v"},
        {"servedName": "a/1-0123456789ab"},
    ]
    return {"root": "/volume", "model": "m", "baseModels": ["m"], "items": items} | changes


def test_a_plan_survives_its_way_through_the_environment() -> None:
    plan = SyncPlan.model_validate(_plan())
    assert SyncPlan.model_validate_json(plan.model_dump_json(exclude_none=True)) == plan
    assert SyncPlan.model_validate_json(plan.model_dump_json(by_alias=True, exclude_none=True)) == plan


@pytest.mark.parametrize(
    "changes",
    [
        {"items": [{"servedName": "a/1-0123456789ab"}] * (MAX_ITEMS + 1)},
        {"items": [{"adapter": "../x", "version": "1", "source": {}}]},
        {"items": [{"adapter": "a", "version": "1/2", "source": {}}]},
        {"items": [{"adapter": "a", "version": "1", "source": {}, "digest": "sha256:x"}]},
        {"items": [{"adapter": "a", "version": "1", "source": {}, "servedName": "a/1-0123456789ab"}]},
        {"items": [{"adapter": "a", "version": "1"}]},
        {"root": "volume"},
        {"baseModels": []},
        {"schemaVersion": 1},
        {"minId": 0},
        {"surprise": 1},
    ],
)
def test_a_plan_that_means_something_else_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SyncPlan.model_validate(_plan(**changes))


def test_an_item_without_a_result_is_to_be_tried_again() -> None:
    plan = SyncPlan.model_validate(_plan())
    report = complete(plan, {1: ItemResult(i=1, served_name="a/1-0123456789ab")}, "because")
    assert [result.i for result in report.results] == [0, 1]
    assert (report.results[0].reason, report.results[0].retry) == ("SyncFailed", True)
    assert report.results[1].reason is None


@pytest.mark.parametrize("reason", list(Reason))
def test_only_what_time_can_cure_is_retried(reason: Reason) -> None:
    assert failed(0, ArtifactError(reason, "x")).retry is (reason in RETRIED)
