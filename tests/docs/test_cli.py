"""docs/cli.md shows what the commands print: each is run, and its output compared with the page.

``python -m tests.docs.test_cli`` writes the outputs of this machine into the page; look at what changed.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafleet.cli.address import Options, parse
from lorafleet.store.fs import POSIX
from lorafleet.store.layout import Layout, prepare
from tests.adapters import adapter
from tests.docs.cluster import cluster
from tests.harness import plane as planes
from tests.store.volume import Volume

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"^\| `lorafleet inspect (\S+)(?: [^`]*)?` \|", re.MULTILINE)
MARK = "lorafleet-docs-mark"

_BASE = "Qwen/Qwen2.5-0.5B-Instruct"
_CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
}
_OUTPUTS = {"q_proj": 896, "v_proj": 128}


def blocks() -> list[str]:
    return BLOCK.findall(PAGE.read_text())


def weights(rank: int, seed: int) -> dict[str, Any]:
    """Matrices of the base model's true sizes."""
    random = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for layer in range(24):
        for name, outputs in _OUTPUTS.items():
            module = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            found[f"{module}.lora_A.weight"] = random.standard_normal((rank, 896)).astype("float16")
            found[f"{module}.lora_B.weight"] = random.standard_normal((outputs, rank)).astype("float16")
    return found


def prepared(folder: Path) -> Path:
    """What the page's examples are about: ``sql-lora``, one that was trained otherwise, ``config.json``, a volume."""
    (folder / "config.json").write_text(json.dumps(_CONFIG))
    common = {"base_model_name_or_path": _BASE, "files": {"tokenizer.json": b'{"version": "1.0"}\n'}}
    adapter(folder / "sql-lora", weights=weights(8, 1), **common)
    adapter(folder / "other-lora", weights=weights(8, 1), **(common | {"base_model_name_or_path": "acme/other"}), r=16)
    layout = Layout(folder / "adapters")
    layout.root.mkdir()
    prepare(layout, POSIX)
    volume = Volume(layout, folder / "claim")
    adapter(folder / "claim" / "sql" / "1.0", files={"tokenizer.json": b"x" * 40_000})
    adapter(folder / "claim" / "sql" / "1.1", lora_alpha=32, files={"tokenizer.json": b"x" * 40_000})
    for version in ("1.0", "1.1"):
        volume.publish(version, f"sql/{version}", adapter="sql")
    dead = layout.staging / f"sql.1.2.{'c0ffee' * 5}00"
    dead.mkdir()
    (dead / "parts").write_bytes(b"x" * 3_000_000)
    for path in (dead / "parts", dead):
        os.utime(path, (1, 1))
    (layout.blobs / f"sha256-{'0f' * 32}").write_bytes(b"x" * 500_000)
    return folder


def commands(block: str) -> list[str]:
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


def run(block: str, folder: Path) -> str:
    """A block with the outputs of its commands, which run one after another in one shell."""
    steps = [f"{line}\nlast=$?; echo {MARK}; (exit $last)" for line in commands(block)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", "\n".join(steps)],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "100", "NO_COLOR": "1", "KUBECONFIG": f"{folder}/kubeconfig"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    outputs = done.stdout.split(f"{MARK}\n")[:-1]
    text = "".join(f"$ {line}\n{output}" for line, output in zip(commands(block), outputs, strict=True))
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def lasting(text: str) -> str:
    """A block without what is another on each machine and day: times, and sizes that a file system rounds up."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r" *\b\d+[dhms](?:\d+[dhms])?\b *", " AGO ", text)
    text = re.sub(r"^((?:serving|blobs|staging|trash)/ +\d+|all) +[\d.]+ \w+$", r"\1 SIZE", text, flags=re.MULTILINE)
    return re.sub(r"[\d.]+ \w+ freed", "SIZE freed", text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, kubeconfig: str) -> Iterator[Path]:
    made = prepared(tmp_path_factory.mktemp("docs"))
    with cluster(kubeconfig, made):
        yield made


@pytest.mark.parametrize("number", range(len(blocks())))
def test_a_block_shows_what_its_commands_print(number: int, folder: Path) -> None:
    block = blocks()[number]
    assert lasting(run(block, folder)) == lasting(block)


def test_each_command_is_on_the_page() -> None:
    shown = " ".join(line for block in blocks() for line in commands(block))
    local = ("inspect", "store ls", "store verify", "store gc --dry-run", "store gc ", "version")
    asking = ("get", "status", "explain", "history", "load-matrix", "promote", "pause", "rollback")
    for command in (*local, *asking):
        assert f"lorafleet {command}" in f"{shown} ", command


def test_the_addresses_on_the_page_are_of_each_source() -> None:
    found = [parse(address, Options()) for address in ADDRESS.findall(PAGE.read_text())]
    assert {source.scheme if source else "path" for source in found} == {
        "path", "huggingFace", "objectStore", "oci", "http",
    }  # fmt: skip


def main() -> None:
    text = PAGE.read_text()
    name = planes.control_plane_name()
    try:
        with tempfile.TemporaryDirectory() as where, cluster(planes.start(name), folder := prepared(Path(where))):
            for block in blocks():
                text = text.replace(f"```console\n{block}```", f"```console\n{run(block, folder)}```")
    finally:
        planes.stop(name)
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
