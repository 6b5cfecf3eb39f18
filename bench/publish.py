"""One large adapter from a folder on a claim: ``lorafleet sync`` against ``cp`` and ``sha256sum`` of the same bytes.

The adapter is one safetensors file of 1 GiB that passes the checks. Ours is the whole process: start, copy, sha256,
the checks with the scan for NaN, publishing, the report; its peak memory is what the kernel counted. The tools copy the
folder and hash the copy, one after the other. Both write to the same memory file system, because sync waits for a disk
and ``cp`` does not. They take turns, three times each; the figure is the ratio of our median time to theirs.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.figure import Figure, median, rounded, say
from bench.sync import FOLDER, MEMORY_MIB, write_adapter
from lorafleet.store.plan import SyncPlan, SyncReport
from tests.adapters import BASE

BOUND = 1 / 0.8
WEIGHTS = "adapter_model.safetensors"


def _tools(claim: Path, work: Path) -> float:
    copy = work / "copy"
    before = time.monotonic()
    subprocess.run(["cp", "-r", str(claim / "big"), str(copy)], check=True)
    subprocess.run(["sha256sum", *map(str, sorted(copy.iterdir()))], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - before
    shutil.rmtree(copy)
    return seconds


def _ours(claim: Path, work: Path) -> tuple[float, float]:
    """Seconds and MiB of one sync of an empty volume. Raises RuntimeError when nothing was published."""
    root, log = work / "volume", work / "report"
    root.mkdir()
    item = {"adapter": "big", "version": "1", "source": {"volume": {"path": "big"}}, "claim": str(claim)}
    plan = SyncPlan.model_validate({"root": str(root), "model": BASE, "baseModels": [BASE], "items": [item]})
    environment = {**os.environ, "LORAFLEET_PLAN": plan.model_dump_json(by_alias=True), "TERMINATION_LOG": str(log)}
    before = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "lorafleet", "sync"], env=environment, stdout=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - before
    (result,) = SyncReport.model_validate_json(log.read_text()).results
    if result.reason is not None:
        raise RuntimeError(f"nothing was published: {result.message}")
    shutil.rmtree(root)
    return seconds, usage.ru_maxrss / 1024


def _measure(size: int, repeats: int) -> Figure:
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-", dir=FOLDER) as folder:
        work = Path(folder)
        claim = work / "claim"
        claim.mkdir()
        write_adapter(claim / "big", size)
        true_size = (claim / "big" / WEIGHTS).stat().st_size
        tools, ours, memory = [], [], []
        for _ in range(repeats):
            tools.append(_tools(claim, work))
            seconds, peak = _ours(claim, work)
            ours.append(seconds)
            memory.append(peak)
    ratio = median(ours) / median(tools)
    say(f"  cp and sha256sum {median(tools):.2f} s, ours {median(ours):.2f} s, ratio {ratio:.3f}")
    raw = {
        "bytes": true_size,
        "tools_s": rounded(tools),
        "ours_s": rounded(ours),
        "ours_mib_s": round(true_size / 2**20 / median(ours)),
        "peak_mib": round(max(memory), 1),
    }
    return Figure(ratio, BOUND, "ratio", raw, {"memory": max(memory) <= MEMORY_MIB})


async def measure(quick: bool) -> Figure:
    """Runs it."""
    return await asyncio.to_thread(_measure, 32 * 2**20 if quick else 2**30, 1 if quick else 3)
