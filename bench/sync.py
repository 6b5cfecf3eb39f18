"""One large adapter from a server on this machine: ``lorafleet sync`` against the plain tool of each source.

The adapter is one safetensors file of 2 GiB that passes the checks. Ours is the whole process: start, download, sha256,
the checks with the scan for NaN, publishing, the report; its peak memory is what the kernel counted. The tool only
writes what it downloads to a file. Both write to the same memory file system, because sync waits for a disk and the
tools do not, and the disk is not what is measured; its pages stay with this machine. They take turns, five times each;
the figure is the worst ratio, over the sources, of our median time to the tool's.
"""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.figure import Figure, median, rounded, say
from bench.resident import resident
from lorafleet.store.plan import SyncPlan, SyncReport
from tests.adapters import BASE, config
from tests.servers.hub import hub_process
from tests.servers.oras import Oras
from tests.servers.process import program
from tests.servers.registry import registry
from tests.servers.s3 import REGION, s3
from tests.servers.web import web_process

BOUND = 1 / 0.9
MEMORY_MIB = 300.0
RANK = 64
WIDTH = 8192
HF = Path(sys.executable).parent / "hf"
FOLDER = Path(os.environ.get("LORAFLEET_BENCH_FOLDER", "/dev/shm"))


@dataclass(frozen=True)
class Case:
    """A source that holds the adapter. ``tool``: a command that writes the weights to a path; ``keys``: its Secret."""

    name: str
    source: Mapping[str, Any]
    tool: Callable[[Path], list[str]]
    keys: Mapping[str, str] = field(default_factory=dict)


def write_adapter(folder: Path, size: int) -> dict[str, str]:
    """An adapter of about ``size`` bytes, and the sha256 of its files. Never more than one matrix is in memory."""
    layers = max(1, size // (2 * 2 * RANK * WIDTH))
    names = {
        f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight": shape
        for layer in range(layers)
        for side, shape in (("A", (RANK, WIDTH)), ("B", (WIDTH, RANK)))
    }
    header, at, length = {}, 0, 2 * RANK * WIDTH
    for name, shape in names.items():
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [at, at + length]}
        at += length
    text = json.dumps(header).encode()
    random = np.random.default_rng(1)
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config(r=RANK, target_modules=["q_proj"])))
    with (folder / "adapter_model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in names:
            file.write(random.standard_normal(RANK * WIDTH, dtype=np.float32).astype(np.float16).tobytes())
    hashes = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


@contextmanager
def _http(adapter: Path, work: Path, hashes: Mapping[str, str]) -> Iterator[Case]:
    with web_process(adapter, work / "web.log") as url:
        files = [{"path": name, "sha256": sha256} for name, sha256 in hashes.items()]
        yield Case(
            "http",
            {"http": {"url": url, "files": files}},
            lambda out: ["curl", "-sf", "-o", str(out), f"{url}/adapter_model.safetensors"],
        )


@contextmanager
def _hub(adapter: Path, work: Path) -> Iterator[Case]:
    with hub_process(work / "hub", work / "hub.log") as running:
        running.files.commit("acme/big", adapter)
        # Its progress bars cost it time, telemetry and xet would go to the public hub.
        quiet = [f"HF_HUB_DISABLE_{name}=1" for name in ("PROGRESS_BARS", "TELEMETRY", "XET")]
        command = [
            "env",
            f"HF_ENDPOINT={running.url}",
            f"HF_HOME={work / 'hf'}",
            *quiet,
            str(HF),
            "download",
            "acme/big",
        ]
        yield Case(
            "huggingFace",
            {"huggingFace": {"repo": "acme/big", "endpoint": running.url}},
            lambda out: [*command, "--local-dir", str(out)],
        )


@contextmanager
def _s3(adapter: Path, work: Path) -> Iterator[Case]:
    with s3(work / "s3") as store:
        store.fill("big", adapter)
        sign = ["--aws-sigv4", f"aws:amz:{REGION}:s3", "-u", ":".join(store.keys.values())]
        url = f"{store.endpoint}/{store.name}/big/adapter_model.safetensors"
        yield Case(
            "s3",
            {"objectStore": {"url": store.url("big/"), "endpoint": store.endpoint}},
            lambda out: ["curl", "-sf", *sign, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD", "-o", str(out), url],
            store.keys,
        )


@contextmanager
def _oci(adapter: Path, work: Path) -> Iterator[Case]:
    with registry(work / "registry") as running:
        digest = Oras(running).files("big", "1", adapter)
        reference = f"{running.address}/big@{digest}"
        command = [str(program("oras")), "pull", "--no-tty", "--plain-http", "-o"]
        yield Case(
            "oci", {"oci": {"reference": reference, "plainHttp": True}}, lambda out: [*command, str(out), reference]
        )


def _tool(case: Case, work: Path) -> float:
    out = work / "tool"
    before = time.monotonic()
    subprocess.run(case.tool(out), check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - before
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink()
    return seconds


def _ours(case: Case, work: Path) -> tuple[float, float]:
    """Seconds and MiB of one sync of an empty volume. Raises RuntimeError when nothing was published."""
    root, secret, log = work / "volume", work / "secret", work / "report"
    for folder in (root, secret):
        folder.mkdir()
    for key, value in case.keys.items():
        (secret / key).write_text(value)
    source = {
        scheme: {**spec, **({"secretName": "bench"} if case.keys else {})} for scheme, spec in case.source.items()
    }
    item = {"adapter": "big", "version": "1", "source": source, **({"secret": str(secret)} if case.keys else {})}
    plan = SyncPlan.model_validate({"root": str(root), "model": BASE, "baseModels": [BASE], "items": [item]})
    environment = {**os.environ, "LORAFLEET_PLAN": plan.model_dump_json(by_alias=True), "TERMINATION_LOG": str(log)}
    before = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "lorafleet", "sync"], env=environment, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - before
    (result,) = SyncReport.model_validate_json(log.read_text()).results
    if result.reason is not None or result.served_name is None:
        raise RuntimeError(f"sync of {case.name} failed: {result.message}")
    shutil.rmtree(root)
    shutil.rmtree(secret)
    return seconds, usage.ru_maxrss / 1024


def _compare(case: Case, work: Path, size: int, repeats: int) -> dict[str, Any]:
    tool, ours, memory = [], [], []
    # The first to touch this much memory pays for it.
    _tool(case, work)
    for _ in range(repeats):
        tool.append(_tool(case, work))
        seconds, peak = _ours(case, work)
        ours.append(seconds)
        memory.append(peak)
    mib = size / 2**20
    ratio = median(ours) / median(tool)
    say(f"  {case.name}: tool {mib / median(tool):.0f} MiB/s, ours {mib / median(ours):.0f} MiB/s, ratio {ratio:.3f}")
    return {
        "tool_s": rounded(tool),
        "ours_s": rounded(ours),
        "ratio": round(ratio, 4),
        "tool_mib_s": round(mib / median(tool)),
        "ours_mib_s": round(mib / median(ours)),
        "peak_mib": round(max(memory), 1),
    }


def _measure(size: int, repeats: int) -> Figure:
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-", dir=FOLDER) as folder, ExitStack() as running:
        work = Path(folder)
        adapter = work / "adapter"
        hashes = write_adapter(adapter, size)
        true_size = (adapter / "adapter_model.safetensors").stat().st_size
        cases = [
            running.enter_context(_http(adapter, work, hashes)),
            running.enter_context(_s3(adapter, work)),
            running.enter_context(_hub(adapter, work)),
            running.enter_context(_oci(adapter, work)),
        ]
        # What one of them writes, and as much for buffers and the other's leftovers.
        with resident(2 * size + 64 * 2**20):
            raw = {case.name: _compare(case, work, true_size, repeats) for case in cases}
    worst = max(found["ratio"] for found in raw.values())
    peak = max(found["peak_mib"] for found in raw.values())
    return Figure(worst, round(BOUND, 4), "ratio", {"bytes": true_size, **raw}, {"memory": peak <= MEMORY_MIB})


async def measure(quick: bool) -> Figure:
    """Runs it."""
    return await asyncio.to_thread(_measure, 64 * 2**20 if quick else 2 * 2**30, 1 if quick else 5)
