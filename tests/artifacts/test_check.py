"""Which folders a fleet serves."""

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import Examination, Expectations, Limits, at_least, check
from lorafleet.artifacts.errors import ArtifactError
from tests.adapters import BASE, PREFIX, adapter, pair

FLEET = Expectations(base_models=(BASE, "alias"), max_rank=16, engine_version="0.32.0")


def _reason(folder: Path, fleet: Expectations = FLEET) -> Reason:
    with pytest.raises(ArtifactError) as caught:
        check(folder, fleet)
    assert caught.value.message
    return caught.value.reason


def test_a_valid_adapter_is_described(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", r=16, files={"tokenizer.json": b"{}"})
    info = check(folder, FLEET)
    assert (info.rank, info.target_modules, info.dtype, info.base_model) == (16, ("q_proj", "v_proj"), "F16", BASE)
    assert [name for name, _ in info.files] == ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"]
    assert info.size_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_what_is_no_part_of_an_adapter_is_left_out(tmp_path: Path) -> None:
    strangers = (
        "adapter_model.bin",
        "optimizer.pt",
        "modeling.py",
        "lorafleet.json",
        ".gitattributes",
        "x.safetensors",
    )
    folder = adapter(tmp_path / "a", files=dict.fromkeys(strangers, b"x"))
    (folder / ".git").mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    assert [name for name, _ in check(folder, FLEET).files] == ["adapter_config.json", "adapter_model.safetensors"]


def test_an_adapter_for_another_base_is_refused(tmp_path: Path) -> None:
    assert check(adapter(tmp_path / "a", base_model_name_or_path="alias"), FLEET).base_model == "alias"
    for number, name in enumerate(("other/base", BASE + "/", BASE.upper(), "", None, ...)):
        folder = adapter(tmp_path / str(number), base_model_name_or_path=name)
        assert _reason(folder) is Reason.BASE_MODEL_MISMATCH


def test_a_rank_above_the_engines_is_refused(tmp_path: Path) -> None:
    assert _reason(adapter(tmp_path / "a", r=17)) is Reason.RANK_TOO_HIGH
    weights = pair(f"{PREFIX}.q_proj", 17) | pair(f"{PREFIX}.v_proj", 8)
    folder = adapter(tmp_path / "b", weights=weights, rank_pattern={"q_proj": 17})
    assert _reason(folder) is Reason.RANK_TOO_HIGH
    assert check(folder, replace(FLEET, max_rank=None)).rank == 17


@pytest.mark.parametrize(
    ("version", "served"),
    [
        ("0.32.0", True),
        ("0.32.0+cpu", True),
        ("0.32.1.dev3+gabc", True),
        ("0.33.0rc1", True),
        ("1.0.0", True),
        ("0.32.0rc1", False),
        ("0.32.0.dev5", False),
        ("0.31.0", False),
        ("0.30.2", False),
        ("0.9.1", False),
        ("dev", False),
        ("", False),
        (None, False),
    ],
)
def test_patterns_are_served_only_by_engines_that_honour_them(tmp_path: Path, version: str, served: bool) -> None:
    assert at_least(version, (0, 32)) is served
    folder = adapter(tmp_path / "a", alpha_pattern={"q_proj": 64})
    fleet = replace(FLEET, engine_version=version)
    if served:
        assert check(folder, fleet).min_engine == "0.32"
    else:
        assert _reason(folder, fleet) is Reason.FEATURE_NOT_SUPPORTED
    assert check(adapter(tmp_path / "plain"), fleet).min_engine is None


@pytest.mark.parametrize(
    ("missing", "present", "reason"),
    [
        ("adapter_config.json", (), Reason.CONFIG_MISSING),
        ("adapter_model.safetensors", (), Reason.WEIGHTS_MISSING),
        ("adapter_model.safetensors", ("adapter_model.bin",), Reason.PICKLE_REFUSED),
        ("adapter_model.safetensors", ("adapter_model.pt",), Reason.PICKLE_REFUSED),
        ("adapter_model.safetensors", ("model.safetensors",), Reason.WEIGHTS_MISSING),
    ],
)
def test_missing_files_are_named(tmp_path: Path, missing: str, present: tuple[str, ...], reason: Reason) -> None:
    folder = adapter(tmp_path / "a", files=dict.fromkeys(present, b"x"))
    (folder / missing).unlink()
    assert _reason(folder) is reason


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "socket"])
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"])
def test_only_regular_files_are_an_adapter(tmp_path: Path, name: str, kind: str, monkeypatch: Any) -> None:
    folder = adapter(tmp_path / "a", files={"tokenizer.json": b"{}"})
    path = folder / name
    original = path.rename(tmp_path / "original")
    if kind == "link":
        path.symlink_to(original)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        monkeypatch.chdir(folder)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(name)
    assert _reason(folder) is Reason.UNSAFE_PATH


@pytest.mark.parametrize("limits", [Limits(max_bytes=100), Limits(max_side_file_bytes=10), Limits(max_entries=1)])
def test_limits_are_kept(tmp_path: Path, limits: Limits) -> None:
    folder = adapter(tmp_path / "a")
    assert _reason(folder, replace(FLEET, limits=limits)) is Reason.SIZE_LIMIT_EXCEEDED


def test_weights_that_contradict_their_configuration_are_refused(tmp_path: Path) -> None:
    assert _reason(adapter(tmp_path / "a", weights=pair("x.q_proj", 4))) is Reason.WEIGHTS_INVALID


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "vocab_size": 64,
}


def test_matrices_are_compared_with_the_base_model(tmp_path: Path) -> None:
    fleet = replace(FLEET, base_config=LLAMA)
    info = check(adapter(tmp_path / "a"), fleet)
    assert info.notices == ()
    assert info.slot_bytes == 2 * 2 * 8 * (16 + 16)
    assert check(adapter(tmp_path / "b"), replace(fleet, tensor_parallel_size=2)).slot_bytes == 2 * 2 * 8 * (16 + 8)
    assert _reason(adapter(tmp_path / "c", width=8), fleet) is Reason.SHAPE_MISMATCH
    assert _reason(adapter(tmp_path / "d", weights=pair(f"{PREFIX}.q_projection")), fleet) is Reason.SHAPE_MISMATCH


@pytest.mark.parametrize(
    ("base_config", "said"),
    [
        (None, "spec.baseModel.config"),
        ({**LLAMA, "architectures": ["NewForCausalLM"]}, "NewForCausalLM"),
        ({**LLAMA, "hidden_size": "16"}, "no usable sizes"),
    ],
)
def test_what_could_not_be_compared_is_said(tmp_path: Path, base_config: Any, said: str) -> None:
    fleet = replace(FLEET, base_config=base_config)
    info = check(adapter(tmp_path / "a", width=8), fleet)
    ((reason, message),) = info.notices
    assert reason is Reason.SHAPES_NOT_CHECKED
    assert said in message
    assert info.slot_bytes == 2 * 2 * 8 * (8 + 8)
    assert check(adapter(tmp_path / "b"), replace(fleet, tensor_parallel_size=2)).slot_bytes is None


def test_no_vllm_takes_a_rank_above_512(tmp_path: Path) -> None:
    fleet = replace(FLEET, max_rank=None)
    assert check(adapter(tmp_path / "a", r=512, width=2), fleet).rank == 512
    assert _reason(adapter(tmp_path / "b", r=513, width=2), fleet) is Reason.RANK_TOO_HIGH


def test_steps_can_be_gone_on_with_after_one_that_failed(tmp_path: Path) -> None:
    examination = Examination(
        adapter(tmp_path / "a", base_model_name_or_path="x", r=17), replace(FLEET, base_config=LLAMA)
    )
    failed = []
    for step in examination.steps():
        try:
            step.run()
        except ArtifactError as error:
            failed.append((step.name, error.reason))
    assert failed == [("base model", Reason.BASE_MODEL_MISMATCH), ("rank", Reason.RANK_TOO_HIGH)]
