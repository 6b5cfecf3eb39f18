"""Twenty versions of an adapter that share all but one file: what the nineteen take beside the first.

The adapter is about 64 MiB of weights, a tokenizer of 4 MiB, and a README of 64 KiB that differs in each version. All
are published by one plan after another from a folder on a claim; used is what file systems call allocated, each file
once. The figure is the extra bytes of nineteen versions over the bytes of their README: what else a version needs is a
folder and a manifest, for which there is a tenth. The bytes are also held against what copies would take.
"""

import asyncio
import os
import tempfile
from pathlib import Path

from bench.figure import Figure, say
from bench.sync import FOLDER, write_adapter
from lorafleet.cli.sync import run_sync
from lorafleet.store.layout import Layout
from lorafleet.store.plan import SyncPlan
from lorafleet.store.published import list_published, verify
from lorafleet.store.room import used_bytes
from tests.adapters import BASE

BOUND = 1.25
VERSIONS = 20
DIFFERENT_BYTES = 64 * 1024
TOKENIZER_BYTES = 4 * 2**20


def _publish(work: Path, version: int) -> int:
    """Publishes a version; what is used then. Raises RuntimeError."""
    folder = work / "claim" / "a"
    (folder / "README.md").write_bytes(os.urandom(DIFFERENT_BYTES))
    item = {"adapter": "a", "version": str(version), "source": {"volume": {"path": "a"}}, "claim": str(work / "claim")}
    root = str(work / "volume")
    plan = SyncPlan.model_validate({"root": root, "model": BASE, "baseModels": [BASE], "items": [item]})
    report = run_sync(plan)
    if report.results[0].reason is not None or report.volume is None:
        raise RuntimeError(f"nothing was published: {report}")
    return report.volume.used_bytes or 0


def _measure(size: int) -> Figure:
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-", dir=FOLDER) as folder:
        work = Path(folder)
        (work / "claim").mkdir()
        (work / "volume").mkdir()
        write_adapter(work / "claim" / "a", size)
        (work / "claim" / "a" / "tokenizer.json").write_bytes(b" " * TOKENIZER_BYTES)
        first = _publish(work, 0)
        for version in range(1, VERSIONS):
            last = _publish(work, version)
        layout = Layout(work / "volume")
        whole = [verify(layout, listed.served_name, deep=True) for listed in list_published(layout)]
        extra = last - first
        differing = (VERSIONS - 1) * DIFFERENT_BYTES
        again = used_bytes(layout)
    say(f"  {VERSIONS} versions: {first} bytes for the first, {extra} more for the others, of which {differing} differ")
    raw = {
        "versions": len(whole),
        "first_bytes": first,
        "extra_bytes": extra,
        "differing_bytes": differing,
        "copies_bytes": sum(one.size_bytes for one in whole),
    }
    right = {"every_version_is_whole": len(whole) == VERSIONS, "nothing_grew": again == last}
    return Figure(extra / differing, BOUND, "ratio", raw, right)


async def measure(quick: bool) -> Figure:
    """Runs it."""
    return await asyncio.to_thread(_measure, 2 * 2**20 if quick else 64 * 2**20)
