"""Every number is looked at, and nothing but a few MiB is ever in memory."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.api.reasons import Reason
from lorafleet.artifacts import tensors as tensors_of
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.safetensors_header import Header, Pair, Weights, read_header
from lorafleet.artifacts.tensors import _CHUNK, scan
from tests.corpus.base import framed, number_bits, safetensors

A, B = "x.q_proj.lora_A.weight", "x.q_proj.lora_B.weight"


def _scan(path: Path, tensors: dict[str, tuple[str, Any]]) -> tuple[str, ...]:
    path.write_bytes(safetensors(tensors))
    header = read_header(path)
    return scan(path, header, _weights(header))


def _weights(header: Header) -> Weights:
    by_name = {tensor.name: tensor for tensor in header.tensors}
    return Weights((Pair("x.q_proj", by_name[A], by_name[B]),))


@pytest.mark.parametrize(
    ("dtype", "bits", "finite"),
    [
        ("F32", 0x7F7F_FFFF, True),
        ("F32", 0x7F80_0000, False),
        ("F32", 0xFF80_0000, False),
        ("F32", 0x7F80_0001, False),
        ("F32", 0xFFFF_FFFF, False),
        ("F32", 0x0000_0001, True),
        ("BF16", 0x7F7F, True),
        ("BF16", 0x7F80, False),
        ("BF16", 0xFFC0, False),
        ("F16", 0x7BFF, True),
        ("F16", 0x7C00, False),
        ("F16", 0xFE00, False),
        ("F64", 0x47EF_FFFF_FFFF_FFFF, True),
        ("F64", 0x47F0_0000_0000_0000, False),
        ("F64", 0xC7F0_0000_0000_0000, False),
        ("F64", 0x7FF0_0000_0000_0000, False),
        ("F64", 0x7FF8_0000_0000_0000, False),
    ],
)
@pytest.mark.parametrize("few", [0, 1024], ids=["numpy", "plain"])
def test_each_pattern_of_bits_is_finite_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, bits: int, finite: bool, few: int
) -> None:
    monkeypatch.setattr(tensors_of, "_FEW", few)
    item = {"F32": "<u4", "BF16": "<u2", "F16": "<u2", "F64": "<u8"}[dtype]
    numbers = np.full((3, 5), 1, item)
    numbers[1, 2] = bits
    tensors = {A: (dtype, np.full((5, 2), 1, item)), B: (dtype, numbers)}
    if finite:
        assert _scan(tmp_path / "w", tensors) == ()
        return
    with pytest.raises(ArtifactError) as caught:
        _scan(tmp_path / "w", tensors)
    assert caught.value.reason is Reason.WEIGHTS_NOT_FINITE
    assert f"{B!r} at row 1, column 2" in caught.value.message


@given(
    st.sampled_from(["F16", "BF16", "F32", "F64"]),
    st.lists(st.floats(width=16) | st.sampled_from([0.0, -0.0]), min_size=4, max_size=4),
)
def test_the_answer_is_that_of_numpy(
    tmp_path_factory: pytest.TempPathFactory, dtype: str, numbers: list[float]
) -> None:
    matrix = np.array(numbers).reshape(2, 2)
    tensors = {A: number_bits(np.ones((2, 2)), dtype), B: number_bits(matrix, dtype)}
    path = tmp_path_factory.mktemp("w") / "w"
    if not np.isfinite(matrix).all():
        with pytest.raises(ArtifactError):
            _scan(path, tensors)
        return
    assert _scan(path, tensors) == (
        () if np.float32(matrix).astype(">f4").any() and _shown(dtype, matrix) else ("x.q_proj",)
    )


def _shown(dtype: str, matrix: Any) -> bool:
    """Whether anything but zero is left in the dtype."""
    _, array = number_bits(matrix, dtype)
    return bool((array & 0x7FFF).any() if dtype == "BF16" else array.any())


@pytest.mark.parametrize("place", [0, _CHUNK // 4 - 1, _CHUNK // 4, 2 * _CHUNK // 4 + 3])
def test_the_first_number_is_found_in_any_chunk(tmp_path: Path, place: int) -> None:
    numbers = np.ones((4, _CHUNK // 4), "<f4")
    numbers.flat[place:] = np.nan
    numbers.flat[place] = np.inf
    with pytest.raises(ArtifactError) as caught:
        _scan(tmp_path / "w", {A: ("F32", numbers), B: ("F32", np.ones((2, 4), "<f4"))})
    row, column = divmod(place, _CHUNK // 4)
    assert f"infinity in tensor {A!r} at row {row}, column {column}" in caught.value.message


def test_one_number_in_the_last_chunk_is_an_effect(tmp_path: Path) -> None:
    zeros = np.zeros((3, _CHUNK // 4), "<f4")
    ones = np.ones((2, 3), "<f4")
    assert _scan(tmp_path / "w", {A: ("F32", zeros), B: ("F32", ones)}) == ("x.q_proj",)
    zeros[-1, -1] = 1e-30
    assert _scan(tmp_path / "w", {A: ("F32", zeros), B: ("F32", ones)}) == ()


def test_other_tensors_are_not_read(tmp_path: Path) -> None:
    nan = np.full((2, 2), np.nan, "<f4")
    pair = {A: ("F32", np.ones((2, 2), "<f4")), B: ("F32", np.ones((2, 2), "<f4"))}
    assert _scan(tmp_path / "w", {"embed.weight": ("F32", nan), **pair, "zz": ("F32", nan)}) == ()


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(safetensors({A: ("F32", np.ones((2, 2), "<f4")), B: ("F32", np.ones((2, 2), "<f4"))}))
    header = read_header(path)
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(ArtifactError) as caught:
        scan(path, header, _weights(header))
    assert caught.value.reason is Reason.WEIGHTS_INVALID


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path, columns = tmp_path / "w", 2**26
    entries = {
        A: {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]},
        B: {"dtype": "F32", "shape": [2, columns], "data_offsets": [4, 4 + 8 * columns]},
    }
    header = framed(entries, b"")
    path.write_bytes(header)
    os.truncate(path, len(header) + 4 + 8 * columns)
    code = (
        "import re, sys; from pathlib import Path; from tests.artifacts.test_tensors import _weights;"
        "from lorafleet.artifacts.safetensors_header import read_header; from lorafleet.artifacts.tensors import scan;"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]);"
        "path = Path(sys.argv[1]); header = read_header(path); before = peak();"
        "scan(path, header, _weights(header)); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=True)
    assert int(done.stdout) < 16 * 1024, "KiB; the file has 512 MiB"
