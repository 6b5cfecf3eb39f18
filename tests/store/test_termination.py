"""A report always fits its 4,096 bytes and always says what matters; of many items the message is a part."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lorafleet.api.reasons import Reason
from lorafleet.store.plan import MAX_ITEMS, ItemResult, SyncReport, VolumeReport
from lorafleet.store.termination import MAX_REPORT_BYTES, SURE_ITEMS, encode, messages

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


@settings(max_examples=200)
@given(st.lists(_GOOD | _BAD, max_size=30).map(tuple) | st.lists(_BAD, max_size=SURE_ITEMS).map(tuple))
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
    results = tuple(_usual(i) for i in range(SURE_ITEMS))
    volume = VolumeReport(used_bytes=10**13, free_bytes=10**13, sharing="hardlink")
    found = SyncReport.model_validate_json(encode(SyncReport(results=results, volume=volume)))
    assert found.results == tuple(one.model_copy(update={"served_name": None}) for one in results)
    assert found.volume == volume


@given(st.lists(st.text("0123456789abcdef/-", min_size=30, max_size=256), min_size=40, max_size=40))
@settings(max_examples=30)
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


def test_what_has_no_room_is_left_and_no_failure() -> None:
    pins = [hashlib.sha512(str(i).encode()).hexdigest() for i in range(SURE_ITEMS)]
    results = tuple(_usual(i).model_copy(update={"pin": pin}) for i, pin in enumerate(pins))
    found = SyncReport.model_validate_json(encode(SyncReport(results=results, left=3)))
    assert 0 < len(found.results) < SURE_ITEMS
    assert found.left == 3 + SURE_ITEMS - len(found.results)


def test_the_message_of_many_items_is_a_part_that_names_the_whole() -> None:
    report = SyncReport(results=tuple(_usual(i) for i in range(MAX_ITEMS)), left=2, volume=VolumeReport(used_bytes=9))
    message, whole = messages(report)
    assert whole is not None
    assert SyncReport.model_validate_json(whole) == report
    assert len(message) <= MAX_REPORT_BYTES
    part = SyncReport.model_validate_json(message)
    assert part.full == hashlib.sha256(whole).hexdigest()
    assert part.volume == report.volume
    assert len(part.results) + (part.left or 0) == MAX_ITEMS + 2
    assert [one.digest for one in part.results] == [one.digest for one in report.results[: len(part.results)]]
    assert len(part.results) > SURE_ITEMS // 2


def test_many_results_that_fit_need_no_other_way() -> None:
    report = SyncReport(results=tuple(ItemResult(i=i, served_name=f"a/{i}-0123456789ab") for i in range(MAX_ITEMS)))
    message, whole = messages(report)
    assert whole is None
    assert SyncReport.model_validate_json(message) == report
