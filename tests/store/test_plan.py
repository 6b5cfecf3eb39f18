"""What a plan says, and what becomes of an item without a result."""

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import RETRIED, ArtifactError
from lorafleet.store.packing import pack, unpacked
from lorafleet.store.plan import MAX_ITEMS, ItemResult, SyncPlan, complete, failed


def _plan(**changes: Any) -> dict[str, Any]:
    items = [
        {"adapter": "a", "version": "1", "source": {"volume": {"path": "x"}}, "claim": "/v"},
        {"servedName": "a/1-0123456789ab"},
    ]
    return {"root": "/volume", "model": "m", "baseModels": ["m"], "items": items} | changes


def test_a_plan_survives_its_way_through_the_environment() -> None:
    plan = SyncPlan.model_validate(_plan())
    assert SyncPlan.model_validate_json(plan.model_dump_json(exclude_none=True)) == plan
    text = plan.model_dump_json(by_alias=True, exclude_none=True)
    assert SyncPlan.model_validate_json(text) == plan
    assert SyncPlan.model_validate_json(pack(text.encode())) == plan


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text("0123456789abcdef", min_size=38, max_size=70),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=8), inner, max_size=8),
)


@given(st.dictionaries(st.text(max_size=8), _JSON, max_size=8))
def test_what_is_packed_comes_out_as_it_was(value: dict[str, Any]) -> None:
    packed = json.loads(pack(json.dumps(value).encode()))
    assert set(packed) == {"packed"}
    assert unpacked(packed) == value


@given(st.integers(0, 200))
def test_hashes_take_their_bytes_and_little_more(count: int) -> None:
    hashes = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(count)]
    assert len(pack(json.dumps(hashes).encode())) <= 40.01 * count + 80


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


def test_an_item_that_was_not_begun_is_no_failure() -> None:
    plan = SyncPlan.model_validate(_plan())
    report = complete(plan, {}, "because", left={1})
    assert [result.i for result in report.results] == [0]
    assert report.left == 1
