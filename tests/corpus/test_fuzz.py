"""Any change of a valid file is refused by name, or means the same to us as to those who read it after us."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from lorafleet.artifacts.check import AdapterInfo, Expectations, check
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.peft_config import with_base_model
from lorafleet.artifacts.safetensors_header import read_header
from tests.corpus.base import CONFIG, WEIGHTS, Base, framed, layout, plain

BASE = Base(hidden=8, heads=2, head_dim=4, intermediate=8, layers=1, vocabulary=16)
DRAFT = plain(BASE, rank=2)
ENTRIES, BODY = layout(DRAFT.tensors)
HEADER = json.dumps({"__metadata__": {"format": "pt"}, **ENTRIES}).encode()
FLEET = Expectations((BASE.name,), 16, "0.32.0", base_config=BASE.config)
UNKNOWN_BASE = Expectations((BASE.name,), None, "0.32.0")
MANY = settings(max_examples=400)

# Pieces that a reader of JSON may trip over, put anywhere.
_PIECES = st.sampled_from(
    [b"0", b"-", b"1e9", b"-0", b'"', b"\\u0000", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b"null", b" ", b"\0",
     b"true", b"NaN", b"\xff", b"\xc3\xa9", b"__metadata__", b"lora_A", b".weight", b"99999999999999999999", b"F64"]
)  # fmt: skip
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 70)
    | st.sampled_from(
        [2**31, 2**53, 2**63, 10**30, 1e308, -1.0, "", "F32", "BF16", "q_proj", ".*", "\ud800", "../x", "\0"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["q_proj", "dtype", "a"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def changed_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """A few cuts, copies, changed bytes and inserted pieces."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        upto = min(len(data), at + draw(st.integers(0, 12)))
        middle = draw(_PIECES | st.binary(max_size=3) | st.just(data[at:upto] * 2))
        data = data[:at] + middle + data[upto:]
    return data


@st.composite
def changed_value(draw: st.DrawFn, value: Any) -> Any:
    """The same JSON with one value, somewhere in it, replaced, removed or renamed."""
    if not isinstance(value, (dict, list)) or not value or draw(st.integers(0, 3)) == 0:
        return draw(_VALUES)
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    key = draw(st.sampled_from(list(value)) if isinstance(value, dict) else st.integers(0, len(value) - 1))
    kind = draw(st.integers(0, 5))
    if kind == 0:
        del copy[key]
    elif kind == 1 and isinstance(value, dict):
        copy[draw(st.sampled_from(list(value)) | st.text(max_size=4))] = copy.pop(key)
    else:
        copy[key] = draw(changed_value(value[key]))
    return copy


def answer(config: bytes, weights: bytes, fleet: Expectations, look: Callable[[Path, AdapterInfo], None]) -> None:
    """Check a folder of these files; ``look`` is asked only about one that passes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / CONFIG).write_bytes(config)
        (folder / WEIGHTS).write_bytes(weights)
        try:
            info = check(folder, fleet)
        except ArtifactError as error:
            assert error.message.encode()
            return
        look(folder, info)


def _as_safetensors_reads_it(folder: Path, info: AdapterInfo) -> None:
    header = read_header(folder / WEIGHTS)
    with safe_open(folder / WEIGHTS, "numpy") as file:
        assert set(file.keys()) == {tensor.name for tensor in header.tensors}
        for tensor in header.tensors:
            found = file.get_slice(tensor.name)
            assert (found.get_dtype(), tuple(found.get_shape())) == (tensor.dtype, tensor.shape)
            assert tensor.dtype == "BF16" or abs(file.get_tensor(tensor.name)).max() < float("inf")


def _as_vllm_reads_it(folder: Path, info: AdapterInfo) -> None:
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    assert config["peft_type"] == "LORA"
    assert info.rank == max(config["r"], *(config.get("rank_pattern") or {"": 0}).values())
    assert (info.base_model, config.get("bias", "none")) == (config["base_model_name_or_path"], "none")
    assert not any(config.get(field) for field in ("use_dora", "lora_bias", "modules_to_save", "layer_replication"))
    rewritten = json.loads(with_base_model((folder / CONFIG).read_bytes(), "/models/x"))
    assert rewritten == config | {"base_model_name_or_path": "/models/x"}


def _config_bytes() -> bytes:
    return json.dumps(DRAFT.config).encode()


@pytest.mark.parametrize("fleet", [FLEET, UNKNOWN_BASE], ids=["base known", "base not known"])
class TestAnyChange:
    """Of a header or a configuration."""

    @MANY
    @given(header=changed_bytes(HEADER))
    def test_of_the_bytes_of_a_header(self, fleet: Expectations, header: bytes) -> None:
        answer(_config_bytes(), framed(header, BODY), fleet, _as_safetensors_reads_it)

    @MANY
    @given(header=changed_value(json.loads(HEADER)))
    def test_of_a_value_of_a_header(self, fleet: Expectations, header: Any) -> None:
        answer(_config_bytes(), framed(header, BODY), fleet, _as_safetensors_reads_it)

    @MANY
    @given(data=changed_bytes(framed(HEADER, BODY)))
    def test_of_the_bytes_of_a_file(self, fleet: Expectations, data: bytes) -> None:
        answer(_config_bytes(), data, fleet, _as_safetensors_reads_it)

    @MANY
    @given(config=changed_bytes(_config_bytes()))
    def test_of_the_bytes_of_a_configuration(self, fleet: Expectations, config: bytes) -> None:
        answer(config, framed(HEADER, BODY), fleet, _as_vllm_reads_it)

    @MANY
    @given(config=changed_value(DRAFT.config))
    def test_of_a_value_of_a_configuration(self, fleet: Expectations, config: Any) -> None:
        answer(json.dumps(config).encode(), framed(HEADER, BODY), fleet, _as_vllm_reads_it)

    def test_of_nothing_passes(self, fleet: Expectations) -> None:
        seen: list[AdapterInfo] = []
        for look in (_as_safetensors_reads_it, _as_vllm_reads_it, lambda folder, info: seen.append(info)):
            answer(_config_bytes(), framed(HEADER, BODY), fleet, look)
        assert seen
