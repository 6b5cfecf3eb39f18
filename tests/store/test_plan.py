"""A report always fits its 4,096 bytes and always says what matters."""

import hashlib
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
    VolumeReport,
    complete,
    encode,
    failed,
)

_TEXT = st.text(st.characters(), max_size=20).flatmap(lambda text: st.integers(0, 300).map(lambda n: text * n))
_GOOD = st.builds(
    ItemResult,
    i=st.integers(0, 39),
    id=st.integers(1, 2**53),
    digest=st.binary(min_size=32, max_size=32).map(lambda data: f"sha256:{data.hex()}"),
    pin=st.none() | st.binary(min_size=32, max_size=32).map(lambda data: f"sha256:{data.hex()}"),
    served_name=st.integers(1, 63).map(lambda n: f"{'a' * n}/{'1' * n}-{'0' * 12}"),
    rank=st.integers(1, 4096),
    target_modules=st.lists(st.text("abcdefgh_", min_size=1, max_size=80), max_size=40).map(tuple),
    size_bytes=st.integers(0, 2**46),
    dtype=st.sampled_from(["F16", "BF16", "BF16+F16+F32+F64"]),
)
_BAD = st.builds(
    ItemResult,
    i=st.integers(0, 39),
    reason=st.sampled_from([reason.value for reason in Reason]),
    message=_TEXT,
    retry=st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_GOOD | _BAD, max_size=30).map(tuple) | st.lists(_BAD, max_size=MAX_ITEMS).map(tuple))
def test_results_always_fit_and_keep_their_facts(results: tuple[ItemResult, ...]) -> None:
    data = encode(SyncReport(results=results))
    assert len(data) <= MAX_REPORT_BYTES
    found = SyncReport.model_validate_json(data.decode())
    cut = {"message": None, "target_modules": None, "more_target_modules": None, "served_name": None}
    assert [one.model_copy(update=cut) for one in found.results] == [one.model_copy(update=cut) for one in results]
    for one, other in zip(found.results, results, strict=True):
        whole = other.target_modules or ()
        kept = one.target_modules or ()
        assert kept == whole[: len(kept)]
        assert len(kept) + (one.more_target_modules or 0) == len(whole)
        assert (one.message is None) == (other.message is None)


def _usual(i: int) -> ItemResult:
    """What a Job says of a usual adapter in a registry."""
    digest, pin = (hashlib.sha256(f"{kind}{i}".encode()).hexdigest() for kind in ("digest", "pin"))
    modules = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    return ItemResult(
        i=i,
        id=1000 + i,
        digest=f"sha256:{digest}",
        served_name=f"customer-{i * 7919}-lora/1.{i}.0-{digest[:12]}",
        rank=16,
        target_modules=modules,
        size_bytes=83_000_000 + i * 7919,
        dtype="BF16",
        pin=f"sha256:{pin}",
        slot_bytes=92_000_000,
    )


def test_a_full_plan_of_usual_adapters_fits_with_all_that_a_status_needs() -> None:
    results = tuple(_usual(i) for i in range(MAX_ITEMS))
    volume = VolumeReport(used_bytes=10**13, free_bytes=10**13, sharing="hardlink")
    found = SyncReport.model_validate_json(encode(SyncReport(results=results, volume=volume)))
    assert found.results == tuple(one.model_copy(update={"served_name": None}) for one in results)
    assert found.volume == volume


@given(st.lists(st.text("0123456789abcdef/-", min_size=30, max_size=256), min_size=40, max_size=40))
@settings(max_examples=30, deadline=None)
def test_what_cannot_fit_loses_whole_results_and_no_facts(pins: list[str]) -> None:
    results = tuple(_usual(i).model_copy(update={"pin": pin, "served_name": None}) for i, pin in enumerate(pins))
    data = encode(SyncReport(results=results))
    assert len(data) <= MAX_REPORT_BYTES
    found = SyncReport.model_validate_json(data).results
    cut = {"target_modules": None, "more_target_modules": None}
    assert found
    assert [one.model_copy(update=cut) for one in found] == [
        one.model_copy(update=cut) for one in results[: len(found)]
    ]


def test_strays_and_damaged_versions_are_named_as_far_as_they_fit() -> None:
    names = tuple(f"{hashlib.sha256(str(n).encode()).hexdigest()[:50]}/1.0-{n:012x}" for n in range(500))
    report = SyncReport(results=(ItemResult(i=0, scrubbed=500, damaged=names),), volume=VolumeReport(strays=names))
    found = SyncReport.model_validate_json(encode(report))
    assert found.results[0].scrubbed == 500
    assert found.results[0].damaged == names[: len(found.results[0].damaged or ())] != ()
    assert found.volume is not None
    assert found.volume.strays == found.results[0].damaged


@pytest.mark.parametrize("packed", ["", "x", "!!!!!", "\u0000", "a" * 4000])
def test_a_packed_report_that_is_damaged_is_refused(packed: str) -> None:
    with pytest.raises(ValidationError):
        SyncReport.model_validate_json(json.dumps({"packed": packed}))


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


@settings(deadline=None)
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
