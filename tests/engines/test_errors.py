"""vLLM's words and what they mean: the table, row by row."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.api.reasons import Reason
from lorafleet.engines.errors import (
    QUOTE,
    RULES,
    Answer,
    Call,
    EngineError,
    Misconfigured,
    Rejected,
    Retry,
    answer,
    classify,
    quote,
)

WRAPPED = "Call to add_lora method failed: Worker failed with error '{}', please check the stack trace above"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"m","type":"t","param":null,"code":400}}', "m"),
        (b'{"error":"Unauthorized"}', "Unauthorized"),
        (b'{"detail":"Not Found"}', "Not Found"),
        (b'{"object":"error","message":"m"}', "m"),
        (b"upstream connect error", "upstream connect error"),
        (b'{"error":{"message":5}}', '{"error":{"message":5}}'),
        (b"[1]", "[1]"),
        (b"", ""),
        (b"\xff", "�"),
    ],
)
def test_the_message_is_found_in_every_shape_of_an_error(body: bytes, message: str) -> None:
    assert answer(418, body) == Answer(418, message)


@pytest.mark.parametrize(
    ("words", "kind", "reason"),
    [
        ("LoRA rank 64 is greater than max_lora_rank 16.", Rejected, Reason.RANK_TOO_HIGH),
        ("vLLM does not yet support DoRA.", Rejected, Reason.FEATURE_NOT_SUPPORTED),
        ("Adapter bias is not supported.", Rejected, Reason.FEATURE_NOT_SUPPORTED),
        ("vLLM does not support LoRA bias (lora_bias).", Rejected, Reason.FEATURE_NOT_SUPPORTED),
        ("vLLM only supports modules_to_save being None.", Rejected, Reason.FEATURE_NOT_SUPPORTED),
        ("vLLM does not support init_lora_weights='pissa'.", Rejected, Reason.FEATURE_NOT_SUPPORTED),
        ("vLLM does not support Activated LoRA (aLoRA).", Rejected, Reason.FEATURE_NOT_SUPPORTED),
        ("vLLM does not support layer_replication.", Rejected, Reason.FEATURE_NOT_SUPPORTED),
        ("vLLM does not support block-diagonal LoRA (BD-LoRA).", Rejected, Reason.FEATURE_NOT_SUPPORTED),
        ("vLLM does not support QALoRA.", Rejected, Reason.FEATURE_NOT_SUPPORTED),
        ("While loading <path>, expected target modules in {'a'} but received ['b'].", Rejected,
         Reason.FEATURE_NOT_SUPPORTED),
        ("Missing required configuration fields: {'r'}", Rejected, Reason.CONFIG_INVALID),
        ("LoRA rank `r` must be a positive integer, got 0.", Rejected, Reason.CONFIG_INVALID),
        ("Expecting value: line 1 column 1 (char 0)", Rejected, Reason.CONFIG_INVALID),
        ("Extra data: line 1 column 3 (char 2)", Rejected, Reason.CONFIG_INVALID),
        ("<path> doesn't contain tensors", Rejected, Reason.WEIGHTS_MISSING),
        ("Error while deserializing header: header too large", Rejected, Reason.WEIGHTS_INVALID),
        ("Weights only load failed. Re-running `torch.load`", Rejected, Reason.WEIGHTS_INVALID),
        ("The size of tensor a (64) must match the size of tensor b (128)", Rejected, Reason.BASE_MODEL_MISMATCH),
        ("The embedding LoRA size(7) must be consistent with the base model's vocabulary size(9).", Rejected,
         Reason.BASE_MODEL_MISMATCH),
        ("LoRA is not enabled. Use --enable-lora to enable LoRA.", Misconfigured, Reason.LORA_DISABLED),
        ("CUDA out of memory", Retry, Reason.LOAD_FAILED),
        ("EngineCore encountered an issue.", Retry, Reason.LOAD_FAILED),
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [400, 404, 500])
def test_a_load_is_classified_by_message_whatever_the_status(
    words: str, kind: type[EngineError], reason: Reason, status: int
) -> None:
    for message in (words, WRAPPED.format(words)):
        error = classify(Answer(status, message), Call.LOAD, "vllm-0", about="a/1-0")
        assert (type(error), error.reason) == (kind, reason)
        assert "vllm-0" in error.message
        assert "a/1-0" in error.message


def test_every_row_of_the_table_has_a_next_move_and_a_known_group() -> None:
    for rule in RULES:
        assert rule.move
        rule.move.format(**dict.fromkeys(rule.pattern.groupindex, "1"))


def test_a_path_that_names_a_feature_does_not_make_a_missing_path_final() -> None:
    message = "Loading lora a/1 failed: No adapter found for /adapters/vLLM does not yet support DoRA"
    assert type(classify(Answer(404, message), Call.LOAD, "vllm-0")) is Retry


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (Call.LOAD, Reason.RUNTIME_UPDATING_DISABLED),
        (Call.UNLOAD, Reason.RUNTIME_UPDATING_DISABLED),
        (Call.LIST, Reason.PORT_NOT_FOUND),
    ],
)
def test_not_found_means_another_thing_for_another_call(call: Call, reason: Reason) -> None:
    error = classify(Answer(404, "Not Found"), call, "vllm-0")
    assert (type(error), error.reason) == (Misconfigured, reason)


@pytest.mark.parametrize(("keyed", "reason"), [(True, Reason.API_KEY_REJECTED), (False, Reason.API_KEY_MISSING)])
def test_unauthorized_depends_on_whether_a_key_was_sent(keyed: bool, reason: Reason) -> None:
    error = classify(Answer(401, "Unauthorized"), Call.LIST, "vllm-0", keyed=keyed)
    assert (type(error), error.reason) == (Misconfigured, reason)
    assert "spec.engines.apiKey" in error.message


def test_an_unknown_refusal_of_a_listing_is_unreachable_and_tried_again() -> None:
    error = classify(Answer(502, "bad gateway"), Call.LIST, "vllm-0")
    assert (type(error), error.reason) == (Retry, Reason.UNREACHABLE)
    assert "502" in error.message
    assert "bad gateway" in error.message


@given(st.integers(100, 599), st.binary(), st.sampled_from(Call))
def test_any_answer_is_classified_into_a_bounded_line(status: int, body: bytes, call: Call) -> None:
    error = classify(answer(status, body), call, "vllm-0")
    assert error.message.isprintable()
    assert len(error.message) < 3 * QUOTE


@given(st.text())
def test_any_message_is_found_again(text: str) -> None:
    assert answer(500, json.dumps({"error": {"message": text}}).encode()).message == text
    assert len(quote(text)) <= QUOTE
