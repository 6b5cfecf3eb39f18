"""Numbers that are looked at while a file arrives are those of the file when it is there, however it is cut."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import Expectations, check
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.tensors import Arriving, Numbers
from tests.adapters import BASE, PREFIX, adapter, pair

EXPECTED = Expectations((BASE,))
WEIGHTS = "adapter_model.safetensors"


def _folder(folder: Path, *bad: str) -> Path:
    made = {}
    for seed, name in enumerate(("q_proj", "v_proj", "o_proj")):
        made |= pair(f"{PREFIX}.{name}", seed=seed, dtype="float32" if seed else "float16")
    for name in bad:
        made[f"{PREFIX}.{name}"][1, 1] = np.nan
    made[f"{PREFIX}.v_proj.lora_B.weight"][:] = -0.0
    return adapter(folder, weights=made, target_modules=["q_proj", "v_proj", "o_proj"])


def _arrived(data: bytes, cuts: list[int], size: int | None = None) -> Numbers | None:
    found = Arriving(len(data) if size is None else size)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(places):
        found.add(memoryview(data)[start:end])
    return found.numbers()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return (_folder(tmp_path_factory.mktemp("sound") / "a") / WEIGHTS).read_bytes()


@given(cuts=st.lists(st.integers(0, 2**20), max_size=40))
def test_however_a_file_is_cut_the_same_is_found(sound: bytes, cuts: list[int]) -> None:
    found = _arrived(sound, cuts)
    assert found is not None
    assert found.zero == {f"{PREFIX}.v_proj.lora_B.weight"}
    assert found.not_finite == ()


@pytest.mark.parametrize("step", [1, 3, 7, 4096])
def test_a_number_that_is_not_finite_is_named_as_when_the_file_is_read(tmp_path: Path, step: int) -> None:
    folder = _folder(tmp_path / "a", "o_proj.lora_A.weight", "q_proj.lora_B.weight")
    data = (folder / WEIGHTS).read_bytes()
    numbers = _arrived(data, list(range(0, len(data), step)))
    said = []
    for one in (numbers, None):
        with pytest.raises(ArtifactError) as caught:
            check(folder, EXPECTED, one)
        assert caught.value.reason is Reason.WEIGHTS_NOT_FINITE
        said.append(caught.value.message)
    assert numbers is not None
    assert said[0] == said[1]


def test_a_file_is_not_read_again_for_its_numbers(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "a")
    numbers = _arrived((folder / WEIGHTS).read_bytes(), [])
    # Only what was found on the way says that it is sound.
    _folder(folder, "q_proj.lora_A.weight")
    check(folder, EXPECTED, numbers)


def test_numbers_of_another_file_count_for_nothing(tmp_path: Path) -> None:
    other = adapter(tmp_path / "other", width=32)
    numbers = _arrived((other / WEIGHTS).read_bytes(), [])
    with pytest.raises(ArtifactError) as caught:
        check(_folder(tmp_path / "a", "q_proj.lora_A.weight"), EXPECTED, numbers)
    assert caught.value.reason is Reason.WEIGHTS_NOT_FINITE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x08\0\0",
        b"\xff" * 64,
        (2**62).to_bytes(8, "little") + b"{}",
        (9).to_bytes(8, "little") + b"not json!",
        (2).to_bytes(8, "little") + json.dumps({}).encode(),
    ],
    ids=["empty", "short", "long", "huge", "garbage", "no tensors"],
)
def test_a_damaged_file_has_no_numbers(data: bytes) -> None:
    assert _arrived(data, [1, 5]) is None


def test_a_file_that_did_not_arrive_whole_has_no_numbers(sound: bytes) -> None:
    assert _arrived(sound[:-1], [], len(sound)) is None
