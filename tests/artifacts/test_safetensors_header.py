"""Which weight files are complete LoRA matrices and nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.peft_config import PeftConfig, parse
from lorafleet.artifacts.safetensors_header import MAX_HEADER_BYTES, Header, check_lora, parse_header, read_header
from tests.adapters import PREFIX, config, pair, raw_header, tensors


def _read(tmp_path: Path, data: bytes) -> Header:
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(data)
    return read_header(path)


def _config(**changes: Any) -> PeftConfig:
    return parse(json.dumps(config(**changes)).encode())


def _entry(start: int = 0, stop: int = 8, shape: Any = (2, 2), dtype: Any = "F16", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop], **more}


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    header = _read(tmp_path, save(tensors(), metadata={"format": "pt"}))
    found = check_lora(header, _config())
    assert (found.target_modules, found.dtypes) == (("q_proj", "v_proj"), ("F16",))
    assert {tensor.name for tensor in header.tensors} == set(tensors())


_BROKEN: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "header longer than the file": (100).to_bytes(8, "little") + b"{}",
    "huge header": (MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}",
    "no JSON": raw_header("{nonsense"),
    "a list": raw_header([]),
    "no tensors": raw_header({}),
    "only metadata": raw_header({"__metadata__": {"format": "pt"}}),
    "metadata of numbers": raw_header({"__metadata__": {"a": 1}, "a": _entry()}, bytes(8)),
    "a name twice": raw_header('{"a":%s,"a":%s}' % ((json.dumps(_entry()),) * 2), bytes(8)),
    "an empty name": raw_header({"": _entry()}, bytes(8)),
    "a name that is a path": raw_header({"../../x": _entry()}, bytes(8)),
    "a name with NUL": raw_header({"a\0b": _entry()}, bytes(8)),
    "a name with a newline": raw_header({"a\n": _entry()}, bytes(8)),
    "a name with an empty part": raw_header({"a..b": _entry()}, bytes(8)),
    "a long name": raw_header({"a" * 513: _entry()}, bytes(8)),
    "an unknown dtype": raw_header({"a": _entry(dtype="F17")}, bytes(8)),
    "a dtype that is a list": raw_header({"a": _entry(dtype=[])}, bytes(8)),
    "an extra field": raw_header({"a": _entry(more=1)}, bytes(8)),
    "a missing field": raw_header({"a": {"dtype": "F16", "shape": [2, 2]}}, bytes(8)),
    "a tensor that is no object": raw_header({"a": 3}, bytes(8)),
    "a size of zero": raw_header({"a": _entry(0, 0, (0, 2))}),
    "a negative size": raw_header({"a": _entry(0, 8, (-2, -2))}, bytes(8)),
    "a fractional size": raw_header({"a": _entry(0, 8, (2.0, 2))}, bytes(8)),
    "a boolean size": raw_header({"a": _entry(0, 4, (True, 2))}, bytes(4)),
    "a size beyond all bounds": raw_header({"a": _entry(0, 8, (2**64, 2))}, bytes(8)),
    "bytes that do not fit the shape": raw_header({"a": _entry(0, 6)}, bytes(6)),
    "backward offsets": raw_header({"a": _entry(8, 0)}, bytes(8)),
    "a hole at the start": raw_header({"a": _entry(8, 16)}, bytes(16)),
    "a hole": raw_header({"a": _entry(), "b": _entry(16, 24)}, bytes(24)),
    "an overlap": raw_header({"a": _entry(), "b": _entry(4, 12)}, bytes(12)),
    "the same bytes twice": raw_header({"a": _entry(), "b": _entry()}, bytes(8)),
    "trailing bytes": raw_header({"a": _entry()}, bytes(9)),
    "a cut body": raw_header({"a": _entry()}, bytes(7)),
}


@pytest.mark.parametrize("data", _BROKEN.values(), ids=_BROKEN)
def test_a_broken_file_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ArtifactError) as caught:
        _read(tmp_path, data)
    assert caught.value.reason is Reason.WEIGHTS_INVALID


def test_the_frame_of_the_broken_files_is_valid(tmp_path: Path) -> None:
    header = _read(tmp_path, raw_header({"b": _entry(8, 16), "a": _entry(), "__metadata__": {}}, bytes(16)))
    assert [tensor.name for tensor in header.tensors] == ["a", "b"]


@given(st.integers(0), st.data())
def test_no_cut_of_a_valid_file_is_accepted(seed: int, data: st.DataObject) -> None:
    whole = save(tensors())
    length = int.from_bytes(whole[:8], "little")
    body = len(whole) - 8 - length
    other = data.draw(st.integers(0, body + 64).filter(lambda size: size != body))
    with pytest.raises(ArtifactError):
        parse_header(whole[8 : 8 + length], other)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.integers(0, 100))
def test_no_header_ends_in_another_error(header: bytes, body: int) -> None:
    try:
        parse_header(header, body)
    except ArtifactError as error:
        assert error.reason is Reason.WEIGHTS_INVALID


_Q = f"{PREFIX}.q_proj"
_NOT_LORA: dict[str, dict[str, Any]] = {
    "B is missing": {f"{_Q}.lora_A.weight": np.ones((8, 4), "float16")},
    "A is missing": {f"{_Q}.lora_B.weight": np.ones((4, 8), "float16")},
    "A with another rank": pair(_Q, rank=4),
    "B with another rank": pair(_Q) | {f"{_Q}.lora_B.weight": np.ones((4, 4), "float16")},
    "matrices the wrong way round": {
        f"{_Q}.lora_A.weight": np.ones((16, 8), "float16"),
        f"{_Q}.lora_B.weight": np.ones((8, 16), "float16"),
    },
    "a whole module": pair(_Q) | {"base_model.model.lm_head.weight": np.ones((4, 4), "float16")},
    "a trained bias": pair(_Q) | {f"{_Q}.bias": np.ones((4,), "float16")},
    "the name of a saved adapter": {
        f"{_Q}.lora_A.default.weight": np.ones((8, 4), "float16"),
        f"{_Q}.lora_B.default.weight": np.ones((4, 8), "float16"),
    },
    "one module by two names": pair("x.q_proj") | pair("base_model.model.x.q_proj"),
    "integers": pair(_Q, dtype="int8"),
    "a convolution": {
        f"{_Q}.lora_A.weight": np.ones((8, 4, 3), "float16"),
        f"{_Q}.lora_B.weight": np.ones((4, 8, 1), "float16"),
    },
    "only embeddings of the base": {
        "base_model.model.model.embed_tokens.base_layer.weight": np.ones((4, 4), "float16")
    },
}


@pytest.mark.parametrize("weights", _NOT_LORA.values(), ids=_NOT_LORA)
def test_tensors_that_are_no_complete_lora_are_refused(tmp_path: Path, weights: dict[str, Any]) -> None:
    header = _read(tmp_path, save(weights))
    with pytest.raises(ArtifactError) as caught:
        check_lora(header, _config())
    assert caught.value.reason is Reason.WEIGHTS_INVALID


def test_dora_tensors_are_named_as_such(tmp_path: Path) -> None:
    header = _read(tmp_path, save(tensors() | {f"{_Q}.lora_magnitude_vector": np.ones((4,), "float16")}))
    with pytest.raises(ArtifactError) as caught:
        check_lora(header, _config())
    assert caught.value.reason is Reason.FEATURE_NOT_SUPPORTED


@pytest.mark.parametrize(
    ("weights", "changes", "modules"),
    [
        (pair("x.q_proj", 4) | pair("x.v_proj"), {"rank_pattern": {"q_proj": 4}}, ("q_proj", "v_proj")),
        (pair("x.mlp.experts", 24) | pair("x.mlp.experts.base_layer", 24), {}, ("experts",)),
        (pair("x.mlp.experts.3.up_proj"), {}, ("up_proj",)),
        (
            {"x.embed_tokens.lora_embedding_A": np.ones((8, 4)), "x.embed_tokens.lora_embedding_B": np.ones((4, 8))},
            {},
            ("embed_tokens",),
        ),
        (
            tensors() | {"base_model.model.model.embed_tokens.base_layer.weight": np.ones((4, 4), "float16")},
            {},
            ("q_proj", "v_proj"),
        ),
    ],
)
def test_other_forms_of_lora_are_accepted(
    tmp_path: Path, weights: dict[str, Any], changes: dict[str, Any], modules: tuple[str, ...]
) -> None:
    assert check_lora(_read(tmp_path, save(weights)), _config(**changes)).target_modules == modules
