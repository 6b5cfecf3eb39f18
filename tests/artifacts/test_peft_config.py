"""Which configurations are served, and how they are rewritten."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.peft_config import MAX_CONFIG_BYTES, parse, with_base_model
from tests.adapters import config


def _bytes(**changes: Any) -> bytes:
    return json.dumps(config(**changes)).encode()


def test_a_plain_lora_is_accepted() -> None:
    found = parse(_bytes(r=16))
    assert (found.rank, found.max_rank, found.target_modules, found.min_engine) == (16, 16, ("q_proj", "v_proj"), None)


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": "all-linear"},
        {"target_modules": r".*\.(q|v)_proj"},
        {"target_modules": None, "target_parameters": ["experts.down_proj"]},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "EVA"},
        {"init_lora_weights": False},
        {"use_rslora": True},
        {"bias": ...},
        {"lora_alpha": 0.5},
        {"rank_pattern": None, "alpha_pattern": None},
        {"rank_pattern": {"q_proj": 8}},
    ],
)
def test_these_are_plain_lora_on_every_engine(changes: dict[str, Any]) -> None:
    assert parse(_bytes(**changes)).min_engine is None


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["classifier"]},
        {"lora_bias": True},
        {"bias": "all"},
        {"bias": None},
        {"layer_replication": [[0, 4], [2, 5]]},
        {"alora_invocation_tokens": [1, 2]},
        {"use_qalora": True},
        {"use_bdlora": {"nblocks": 2}},
        {"arrow_config": {"top_k": 2}},
        {"kasa_config": {"beta": 0.1}},
        {"monteclora_config": {"rank": 1}},
        {"trainable_token_indices": [7]},
        *(
            {"init_lora_weights": init}
            for init in ("pissa", "PiSSA", "pissa_niter_4", "olora", "corda", "loftq", "new")
        ),
    ],
)
def test_what_vllm_does_not_apply_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse(_bytes(**changes))
    assert caught.value.reason is Reason.FEATURE_NOT_SUPPORTED
    assert next(iter(changes)) in caught.value.message


@pytest.mark.parametrize("peft_type", ["lora", "IA3", None, ..., 3])
def test_other_kinds_of_adapters_are_refused(peft_type: Any) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse(_bytes(peft_type=peft_type))
    assert caught.value.reason is Reason.PEFT_TYPE_NOT_SUPPORTED


@pytest.mark.parametrize(
    "changes",
    [
        *({"r": value} for value in (0, -1, True, "8", 8.0, None, ...)),
        *({"lora_alpha": value} for value in ("16", True, None, ...)),
        *({"target_modules": value} for value in ([], [1], "", 3, None, ...)),
        *({"rank_pattern": value} for value in ({"q_proj": 0}, {"q_proj": True}, ["q_proj"], {"(": 4}, {"": 4})),
        *({"rank_pattern": {key: 4}} for key in ("(a+)+", "(a|a)*b", ".*.*.*x", "a" * 257, "q{9999}")),
        {"alpha_pattern": {"q_proj": "x"}},
        {"base_model_name_or_path": 3},
    ],
)
def test_a_configuration_that_peft_would_not_write_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse(_bytes(**changes))
    assert caught.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'\xef\xbb\xbf{"peft_type": "LORA"}',
        b'{"peft_type": "LORA", "r": NaN}',
        b'{"peft_type": "LORA", "lora_alpha": 1e999}',
        b'{"peft_type": "LORA", "r": 1, "r": 2}',
        b'{"a": {"use_dora": false, "use_dora": true}}',
        b'{"a":' * 100_000,
        b'{"r": ' + b"9" * 5000 + b"}",
    ],
)
def test_bytes_that_two_readers_may_read_differently_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse(data)
    assert caught.value.reason is Reason.CONFIG_INVALID


def test_a_large_configuration_is_refused_unread() -> None:
    with pytest.raises(ArtifactError) as caught:
        parse(b" " * (MAX_CONFIG_BYTES + 1))
    assert caught.value.reason is Reason.SIZE_LIMIT_EXCEEDED


@pytest.mark.parametrize("changes", [{"rank_pattern": {"q_proj": 4}}, {"alpha_pattern": {"v_proj": 32}}])
def test_patterns_that_change_something_need_vllm_0_32(changes: dict[str, Any]) -> None:
    assert parse(_bytes(**changes)).min_engine == (0, 32)


def test_ranks_follow_the_first_pattern_that_matches_a_whole_suffix() -> None:
    found = parse(_bytes(rank_pattern={r"layers\.1\.self_attn\.q_proj": 4, "q_proj": 32, r"^model\.mlp$": 2}))
    modules = ("model.layers.1.self_attn.q_proj", "model.layers.2.self_attn.q_proj", "x.aq_proj", "model.mlp", "v_proj")
    assert [found.rank_of(module) for module in modules] == [4, 32, 8, 2, 8]
    assert found.max_rank == 32


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), _JSON), st.text(min_size=1))
def test_rewriting_changes_the_base_model_and_no_other_value(fields: dict[str, Any], model: str) -> None:
    rewritten = json.loads(with_base_model(json.dumps(fields).encode(), model))
    assert rewritten == fields | {"base_model_name_or_path": model}
