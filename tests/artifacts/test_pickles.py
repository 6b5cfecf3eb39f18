"""Which pickles become safetensors, to the byte as the library writes it, and that no pickle ever runs anything."""

import io
import os
import pickle
import random
import struct
import subprocess
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits
from lorafleet.artifacts.pickles import convert

DATA = Path(__file__).parent / "data"
CONVERTED = sorted(path.stem for path in DATA.glob("*.safetensors"))


def read(path: Path, limits: Limits | None = None) -> bytes:
    return b"".join(map(bytes, convert(path, limits or Limits())))


def refused(path: Path, reason: Reason = Reason.PICKLE_REFUSED, limits: Limits | None = None) -> str:
    with pytest.raises(ArtifactError) as caught:
        read(path, limits)
    assert caught.value.reason is reason, caught.value.message
    assert len(caught.value.message) < 800
    return caught.value.message


def torch_zip(program: bytes, files: Mapping[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> bytes:
    """A file as torch.save writes it, with this pickle."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in (files or {"data/0": bytes(16)}).items():
            archive.writestr(f"archive/{name}", content)
    return out.getvalue()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(
    storage: str = "FloatStorage",
    key: str = "0",
    count: int = 4,
    offset: int = 0,
    shape: Any = (2, 2),
    strides: Any = None,
) -> bytes:
    """The instructions that torch writes for a tensor."""
    whole = [(2, 1)[number] for number in range(len(shape))] if strides is None else strides
    return b"".join(
        (
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            text("storage"),
            f"ctorch\n{storage}\n".encode(),
            *(text(key), text("cpu"), _int(count), b"tQ", _int(offset)),
            *(b"(", *map(_int, shape), b"t(", *map(_int, whole), b"t"),
            b"\x89ccollections\nOrderedDict\n)RtR",
        )
    )


def _int(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else b"\x8a\x08" + struct.pack("<q", value)


def program(value: bytes, name: str = "x") -> bytes:
    return b"\x80\x02}(" + text(name) + value + b"u."


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "adapter_model.bin"


@pytest.mark.parametrize("case", CONVERTED)
def test_the_result_is_what_torch_and_the_safetensors_library_write(case: str) -> None:
    assert read(DATA / f"{case}.bin") == (DATA / f"{case}.safetensors").read_bytes()


def test_there_is_a_fixture_of_each_kind() -> None:
    wanted = {"bf16", "fp16", "fp32", "parameters", "state_dict", "not_contiguous", "shared_storage", "dtypes"}
    assert set(CONVERTED) == wanted


def test_a_newer_protocol_gives_the_same() -> None:
    assert read(DATA / "protocol_4.bin") == read(DATA / "fp16.bin")


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("legacy", "since torch 1.6"),
        ("checkpoint", "'step'"),
        ("module", "'torch.nn.modules.linear.Linear'"),
        ("expanded", "more elements"),
        ("sparse", "_rebuild_sparse_tensor"),
        ("conjugate", "ComplexFloatStorage"),
    ],
)
def test_what_torch_saves_beside_plain_tensors_is_refused_by_name(case: str, said: str) -> None:
    message = refused(DATA / f"{case}.bin")
    assert said in message
    assert "safe_serialization=True" in message


def test_the_frame_of_the_hostile_pickles_is_valid(file: Path) -> None:
    file.write_bytes(torch_zip(program(tensor())))
    assert safetensors.deserialize(read(file)) == [("x", {"shape": [2, 2], "dtype": "F32", "data": bytearray(16)})]


class _Reduced:
    """Pickled as a call of anything."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


_CODE: dict[str, tuple[Any, str]] = {
    "os.system": (_Reduced(os.system, ("touch canary",)), "system"),
    "builtins.eval": (_Reduced(eval, ("__import__('os').system('touch canary')",)), "eval"),
    "subprocess": (_Reduced(subprocess.Popen, (["touch", "canary"],)), "Popen"),
    "getattr": (_Reduced(getattr, (_Reduced(__import__, ("os",)), "system")), "getattr"),
    "open": (_Reduced(open, ("canary", "w")), "open"),
    "pickle in pickle": (_Reduced(pickle.loads, (b"cos\nsystem\n(S'touch canary'\ntR.",)), "loads"),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("case", _CODE)
def test_no_code_is_run_and_the_call_is_named(
    file: Path, case: str, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    value, name = _CODE[case]
    file.write_bytes(torch_zip(pickle.dumps({"x": value}, protocol)))
    message = refused(file)
    assert not (file.parent / "canary").exists()
    # Protocol 0 writes even texts by instructions that torch never uses.
    assert name in message or (protocol == 0 and "instruction" in message)


_REFUSED: dict[str, bytes] = {
    "a global below torch": program(b"ctorch\nload\n"),
    "a global with a dotted name": program(text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93"),
    "a module of a nested name": program(text("collections.OrderedDict") + text("__init__") + b"\x93"),
    "another storage": program(tensor("QInt8Storage")),
    "the untyped storage": program(b"ctorch.storage\nUntypedStorage\n"),
    "attributes of a tensor": program(tensor() + b"}" + text("storage") + b"K\1sb"),
    "attributes of a function": program(b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("__code__") + b"K\1sb"),
    "attributes of a class": program(b"ctorch\nFloatStorage\nN}" + text("name") + b"K\1s\x86b"),
    "an object": program(b"ccollections\nOrderedDict\n)\x81"),
    "an instance": program(b"(icollections\nOrderedDict\n"),
    "an extension": program(b"\x82\1"),
    "a call of a text": program(text("os.system") + text("id") + b"\x85R"),
    "a call of a result": program(b"ccollections\nOrderedDict\n)R)R"),
    "a call of a tensor": program(tensor() + b")R"),
    "a dict of arguments": program(b"ccollections\nOrderedDict\n((" + text("a") + b"K\1tt\x85R"),
    "a tensor with hooks": program(tensor().replace(b"OrderedDict\n)R", b"OrderedDict\n)R" + text("a") + b"K\1s")),
    "a tensor with metadata": program(tensor()[:-2] + b"}" + text("conj") + b"\x88stR"),
    "a tensor without a storage": program(tensor().replace(b"tQ", b"t")),
    "a persistent id of another kind": program(tensor().replace(text("storage"), text("program"))),
    "a persistent id that is a text": program(text("storage") + b"Q"),
    "a negative offset": program(tensor(offset=-1)),
    "a negative size": program(tensor(shape=(-2, -2))),
    "a negative stride": program(tensor(strides=(-2, 1))),
    "a size that is a truth": program(tensor().replace(_int(2), b"\x88")),
    "nine dimensions": program(tensor(shape=(1,) * 9, strides=(1,) * 9)),
    "fewer strides": program(tensor(strides=(1,))),
    "a size beyond all bounds": program(tensor(shape=(2**62, 2**62), strides=(0, 0))),
    "more elements than the storage has": program(tensor(shape=(1000, 1000), strides=(0, 0))),
    "a list": b"\x80\x02].",
    "an empty dict": b"\x80\x02}.",
    "a number": b"\x80\x02K\1.",
    "a tensor alone": b"\x80\x02" + tensor() + b".",
    "a dict of dicts": program(b"}"),
    "a name that is a number": b"\x80\x02}(K\1" + tensor() + b"u.",
    "a name of the format": program(tensor(), "__metadata__"),
}


@pytest.mark.parametrize("code", _REFUSED.values(), ids=_REFUSED)
def test_anything_but_plain_tensors_is_refused(file: Path, code: bytes) -> None:
    file.write_bytes(torch_zip(code))
    refused(file)


_DAMAGED: dict[str, bytes] = {
    "an empty pickle": torch_zip(b""),
    "no end": torch_zip(program(tensor())[:-1]),
    "nothing on the stack": torch_zip(b"\x80\x02."),
    "a mark that is not there": torch_zip(b"\x80\x02}u."),
    "a memo that is not there": torch_zip(program(b"h\1")),
    "an odd number of items": torch_zip(program(tensor() + text("y"))),
    "a storage that is not there": torch_zip(program(tensor(key="1"))),
    "a key that leads out": torch_zip(program(tensor(key="../data.pkl"))),
    "a storage of another size": torch_zip(program(tensor(count=5))),
    "a tensor behind its storage": torch_zip(program(tensor(offset=1))),
    "strides behind the storage": torch_zip(program(tensor(strides=(3, 1)))),
    "a dtype wider than the storage": torch_zip(program(tensor("DoubleStorage"))),
    "an empty tensor": torch_zip(program(tensor(shape=(0, 2)))),
    "a compressed storage": torch_zip(program(tensor()), method=zipfile.ZIP_DEFLATED),
    "a name that is no text": torch_zip(program(b"NN\x93")),
}


@pytest.mark.parametrize("data", _DAMAGED.values(), ids=_DAMAGED)
def test_a_damaged_file_is_refused(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    refused(file, Reason.WEIGHTS_INVALID)


def test_wrong_bytes_of_a_tensor_are_seen_by_their_checksum(file: Path) -> None:
    data = bytearray((DATA / "fp32.bin").read_bytes())
    data[data.index(b"FB", 1000) + 200] ^= 1
    file.write_bytes(data)
    refused(file, Reason.WEIGHTS_INVALID)


def test_big_endian_files_are_refused(file: Path) -> None:
    files = {"data/0": bytes(16), "byteorder": b"little"}
    file.write_bytes(torch_zip(program(tensor()), files))
    read(file)
    file.write_bytes(torch_zip(program(tensor()), files | {"byteorder": b"big"}))
    assert "big-endian" in refused(file)


def test_no_cut_is_accepted(file: Path) -> None:
    data = (DATA / "bf16.bin").read_bytes()
    for size in range(0, len(data), 37):
        file.write_bytes(data[:size])
        with pytest.raises(ArtifactError):
            read(file)


def test_the_size_limit_holds_for_what_comes_out(file: Path) -> None:
    """Many tensors may share one storage."""
    shared = b"\x80\x02}(" + b"".join(text(str(number)) + tensor() for number in range(100)) + b"u."
    file.write_bytes(torch_zip(shared))
    read(file, Limits(max_bytes=1600))
    refused(file, Reason.SIZE_LIMIT_EXCEEDED, Limits(max_bytes=1599))


_BOMBS: dict[str, bytes] = {
    "a text that is not there": program(b"\x8d" + struct.pack("<Q", 2**62)),
    "a number of megabytes": program(b"\x8b" + struct.pack("<i", 4_000_000) + b"\x7f" * 4_000_000),
    "a large pickle": program(text("x" * 17 * 1024**2)),
    "many instructions": b"\x80\x02" + b"}" * 3_000_000 + b".",
    "nested tuples": b"\x80\x02" + b")" + b"q\0h\0h\0\x86" * 200 + b"N\x93.",
    "nested tuples as a name": b"\x80\x02})" + b"q\0h\0h\0\x86" * 200 + b"Ns.",
    "nested tuples as arguments": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)" + b"q\0h\0h\0\x86" * 200 + b"R.",
    "deep nesting": b"\x80\x02)" + b"\x85" * 200_000 + b"Q.",
    "a dict in itself": b"\x80\x02}q\0" + text("x") + b"h\0s.",
}


@pytest.mark.parametrize("code", _BOMBS.values(), ids=_BOMBS)
def test_a_bomb_is_refused_in_little_memory(file: Path, code: bytes) -> None:
    file.write_bytes(torch_zip(code))
    traced = len(code) < 100_000  # Tracing makes millions of instructions slow.
    if traced:
        tracemalloc.start()
    with pytest.raises(ArtifactError):
        read(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 1024**2


def test_the_number_of_instructions_is_bounded(file: Path) -> None:
    file.write_bytes(torch_zip(_BOMBS["many instructions"]))
    assert "more than 2000000 instructions" in refused(file)


def test_a_high_number_in_the_memo_takes_no_memory(file: Path) -> None:
    """A list of that length, as pickle makes it, would have 16 GiB."""
    file.write_bytes(torch_zip(program(tensor() + b"r\xff\xff\xff\x7f")))
    assert read(file)


@pytest.mark.parametrize("seed", range(4))
def test_no_program_ends_in_another_error_or_in_an_invalid_file(file: Path, seed: int) -> None:
    source = random.Random(seed)
    with zipfile.ZipFile(DATA / "shared_storage.bin") as archive:
        files = {name.removeprefix("shared_storage/"): archive.read(name) for name in archive.namelist()}
    code = files.pop("data.pkl")
    for _ in range(300):
        file.write_bytes(torch_zip(_mutate(code, source), files))
        try:
            found = read(file)
        except ArtifactError:
            continue
        assert safetensors.deserialize(found)


@pytest.mark.parametrize("seed", range(2))
def test_no_damage_ends_in_another_error(file: Path, seed: int) -> None:
    source = random.Random(seed)
    data = (DATA / "not_contiguous.bin").read_bytes()
    for _ in range(300):
        file.write_bytes(_mutate(data, source))
        try:
            found = read(file)
        except ArtifactError:
            continue
        assert safetensors.deserialize(found)


def _mutate(data: bytes, source: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 6])):
        at = source.randrange(len(out))
        match source.randrange(4):
            case 0:
                out[at] = source.randrange(256)
            case 1:
                out[at] = source.choice(b"}]()tuaseQRbh0.2NcK\x81\x85\x86\x87\x88\x8a\x93\x94\x95")
            case 2:
                del out[at : at + source.choice([1, 2, 9])]
            case _:
                other = source.randrange(len(data))
                out[at:at] = data[other : other + source.choice([1, 5, 40])]
    return bytes(out)
