"""The first sync of 1,000 small adapters from a bucket: the sync Jobs' processes against one bare process.

Each adapter is three files of 64 to 100 KiB together that pass the checks, in a folder of an S3 server on this machine.
Ours is what a fleet does that meets them all at once: the plans of Jobs as the operator makes them, as many Jobs at
once as its default, each a process of ``lorafleet sync`` with its plan in the environment, the results read back as the
operator reads them (the pod's whole report, vouched for by the termination message), until every version is published:
listed, fetched, checked, durable, visible, and the garbage collected. Starting a process is in it; what Kubernetes
takes to start a pod is not, nor the operator's own work.

The bare process is an obstore client that has as many requests on their way at once. It lists each adapter's folder, as
one must who was told where the adapters are, and writes the files to a folder; it checks nothing and waits for no disk.
Both write to the same file system. They take turns, three times each, on two lines: ``far``, where each answer takes
20 ms longer, as from a bucket in the same region, and ``near``, this machine's loopback, where nothing is left
but the processor time of the programs. The figure is the ratio of our median time to the bare process' on the far line.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from obstore.store import S3Store

from bench.far import far
from bench.figure import Figure, median, rounded, say
from bench.sync import FOLDER
from lorafleet.cli.sync import SIDE_BY_SIDE
from lorafleet.controller import jobs, longreports, reports
from lorafleet.controller.settings import Settings
from lorafleet.controller.state import FleetState, SyncItem
from lorafleet.controller.sync import batch_of
from lorafleet.rollout.observed import Published
from lorafleet.store.plan import PLAN_ENV, SyncPlan
from lorafleet.store.termination import SURE_ITEMS
from tests.adapters import adapter, tensors
from tests.controller.fleets import SPEC, add_adapter, hash_of, state_of
from tests.servers.bucket import Bucket
from tests.servers.process import LOOPBACK
from tests.servers.s3 import REGION, s3

BOUND = 1.5
FAR_SECONDS = 0.02
FILES = 3
WIDTHS = (1024, 1280, 1536)
"""Of the two modules of rank 8: 64, 80 and 96 KiB of weights."""
README = b"A small adapter.\n" * 60
FILLERS = 16


@dataclass
class Run:
    """One time everything was fetched."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    jobs: int = 0


@dataclass
class Volume:
    """A fleet's empty volume and its Secret, as folders, and what waits to be published there."""

    folder: Path
    state: FleetState
    waiting: list[SyncItem]
    settings: Settings = field(default_factory=Settings)
    known: set[str] = field(default_factory=set)
    jobs: int = 0
    idle: int = 0

    @property
    def root(self) -> Path:
        return self.folder / "volume"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"


def _name(number: int) -> str:
    return f"a{number:04d}"


async def _fill(bucket: Bucket, folder: Path, count: int) -> int:
    """Makes the adapters, each with bytes of its own; how many bytes they are."""
    store, room, size = _store(bucket), asyncio.Semaphore(FILLERS), 0

    async def put(path: Path, key: str) -> None:
        async with room:
            await store.put_async(key, path)

    for number in range(count):
        one = adapter(
            folder / _name(number),
            weights=tensors(seed=number * 2, width=WIDTHS[number % len(WIDTHS)]),
            base_model_name_or_path=SPEC["baseModel"]["name"],
            files={"README.md": b"# %d\n" % number + README},
        )
        size += sum(path.stat().st_size for path in one.iterdir())
        await asyncio.gather(*(put(path, f"adapters/{one.name}/{path.name}") for path in one.iterdir()))
    shutil.rmtree(folder)
    return size


def _config(bucket: Bucket) -> dict[str, str]:
    return {"endpoint": bucket.endpoint, "region": REGION, **{key.lower(): value for key, value in bucket.keys.items()}}


def _store(bucket: Bucket) -> S3Store:
    return S3Store.from_url(f"s3://{bucket.name}", config=_config(bucket), client_options={"allow_http": True})


def _volume(bucket: Bucket, folder: Path, count: int) -> Volume:
    state, waiting = state_of(), []
    for number in range(count):
        name = _name(number)
        source = {"url": bucket.url(f"adapters/{name}/"), "endpoint": bucket.endpoint, "secretName": "bucket"}
        add_adapter(state, name, sources={"1": {"objectStore": source}}, uid=name)
        waiting.append(SyncItem(name, name, version="1", entry=hash_of(state, "1", name)))
    one = Volume(folder, state, waiting)
    one.root.mkdir(parents=True)
    (one.secrets / "bucket").mkdir(parents=True)
    for key, value in bucket.keys.items():
        (one.secrets / "bucket" / key).write_text(value)
    return one


async def _job(one: Volume, batch: list[SyncItem]) -> None:
    """A Job from the start of its process to its results. Raises RuntimeError when one of them is no success."""
    plan, items, _ = jobs.plan_for(one.state, batch, one.settings, one.known)
    text = plan.model_dump_json(by_alias=True, exclude_none=True)
    for mount, folder in ((jobs.VOLUME, one.root), (jobs.SECRETS, one.secrets)):
        text = text.replace(f'"{mount}', f'"{folder}')
    number, one.jobs = one.jobs, one.jobs + 1
    message, log, port = one.folder / f"message-{number}", one.folder / f"log-{number}", LOOPBACK.port()
    environment = {
        **os.environ,
        PLAN_ENV: jobs.dump_plan(SyncPlan.model_validate_json(text)),
        "TERMINATION_LOG": str(message),
        "LORAFLEET_PROGRESS_PORT": str(port),
    }
    with log.open("wb") as out:
        command = [sys.executable, "-m", "lorafleet", "sync"]
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=out, stderr=out)
        asking = asyncio.create_task(_report(port)) if len(items) > SURE_ITEMS else None
        code = await process.wait()
    whole = b""
    if asking is not None:
        asking.cancel()
        with suppress(asyncio.CancelledError):
            whole = await asking
    ended = {"terminated": {"message": message.read_text() if message.exists() else "", "exitCode": code}}
    pod = {"metadata": {"name": "job"}, "status": {"phase": "Succeeded", "containerStatuses": [{"state": ended}]}}
    outcome = reports.pod_outcome(pod, items, whole)
    assert outcome is not None
    for item, result in outcome.results.items():
        if not isinstance(result, Published):
            raise RuntimeError(f"{item.adapter} is not published: {result}; {log.read_text()[-2000:]}")
        one.known.add(item.adapter)
    one.waiting += [item for item in items if item not in outcome.results]


async def _report(port: int) -> bytes:
    """What the operator is answered that asks as often as it does."""
    async with httpx.AsyncClient(trust_env=False) as http:
        while True:
            with suppress(httpx.HTTPError):
                return await longreports.fetch(http, "127.0.0.1", port)
            await asyncio.sleep(longreports.EVERY)


async def _ours(bucket: Bucket, folder: Path, count: int) -> Run:
    """Jobs until everything is published. Raises RuntimeError when something is not."""
    one = _volume(bucket, folder, count)
    one.idle = one.settings.sync_jobs_per_fleet

    async def lane() -> None:
        while one.waiting:
            batch = batch_of(one.state, one.waiting, one.idle)
            one.waiting = [item for item in one.waiting if item not in set(batch)]
            one.idle -= 1
            await _job(one, batch)
            one.idle += 1

    before, cpu = time.monotonic(), os.times()
    await asyncio.gather(*(lane() for _ in range(one.settings.sync_jobs_per_fleet)))
    seconds, after = time.monotonic() - before, os.times()
    published = [path for path in (one.root / "serving").glob("*/1-*") if len(list(path.iterdir())) == FILES + 1]
    if not len(published) == len(one.known) == count:
        raise RuntimeError(f"of {count} versions {len(published)} are published and {len(one.known)} reported")
    shutil.rmtree(folder)
    return Run(seconds, _children(after) - _children(cpu), one.jobs)


def _bare(bucket: Bucket, folder: Path, count: int, at_once: int, *, lists: bool) -> Run:
    """The bare process; one that does not list knows the names of the files."""
    names = [] if lists else ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    wanted = {
        "url": f"s3://{bucket.name}",
        "config": _config(bucket),
        "folders": {f"adapters/{_name(number)}": names for number in range(count)},
        "out": str(folder),
        "at_once": at_once,
    }
    folder.mkdir()
    before, cpu = time.monotonic(), os.times()
    subprocess.run([sys.executable, "-m", "bench.bare_fetch"], input=json.dumps(wanted).encode(), check=True)
    seconds, after = time.monotonic() - before, os.times()
    files = sum(path.is_file() for path in folder.rglob("*"))
    if files != FILES * count:
        raise RuntimeError(f"the bare process wrote {files} files")
    shutil.rmtree(folder)
    return Run(seconds, _children(after) - _children(cpu))


def _children(times: os.times_result) -> float:
    return times.children_user + times.children_system


async def _compare(bucket: Bucket, work: Path, count: int, repeats: int, line: str) -> dict[str, Any]:
    # Our small adapters have one request each on its way at a time, its adapters one for each file.
    at_once = Settings().sync_jobs_per_fleet * SIDE_BY_SIDE // FILES
    ours, listing, knowing = [], [], []
    # The first to touch this much memory pays for it.
    _bare(bucket, work / "bare", count, at_once, lists=False)
    for _ in range(repeats):
        listing.append(_bare(bucket, work / "bare", count, at_once, lists=True))
        ours.append(await _ours(bucket, work / "ours", count))
        knowing.append(_bare(bucket, work / "bare", count, at_once, lists=False))
    seconds = {
        name: [run.seconds for run in runs] for name, runs in (("ours", ours), ("bare", listing), ("knowing", knowing))
    }
    ratio = median(seconds["ours"]) / median(seconds["bare"])
    say(f"  {line}: ours {median(seconds['ours']):.2f} s, bare {median(seconds['bare']):.2f} s, ratio {ratio:.2f}")
    return {
        "ratio": round(ratio, 4),
        "jobs": ours[-1].jobs,
        "ours_s": rounded(seconds["ours"]),
        "bare_s": rounded(seconds["bare"]),
        "bare_that_knows_all_names_s": rounded(seconds["knowing"]),
        "ours_cpu_s": rounded([run.cpu_s for run in ours]),
        "bare_cpu_s": rounded([run.cpu_s for run in listing]),
    }


async def measure(quick: bool) -> Figure:
    """Runs it."""
    count, repeats = (90, 1) if quick else (1000, 3)
    with tempfile.TemporaryDirectory(prefix="lorafleet-bench-", dir=FOLDER) as folder, ExitStack() as stack:
        work = Path(folder)
        bucket = stack.enter_context(s3(work / "s3"))
        size = await _fill(bucket, work / "adapters", count)
        say(f"  {count} adapters of {size / count / 1024:.0f} KiB")
        raw: dict[str, Any] = {"adapters": count, "bytes": size, "far_ms": FAR_SECONDS * 1000}
        raw["near"] = await _compare(bucket, work, count, repeats, "near")
        endpoint = stack.enter_context(far(bucket.endpoint, FAR_SECONDS, work / "far.log"))
        raw["far"] = await _compare(replace(bucket, endpoint=endpoint), work, count, repeats, "far")
    return Figure(raw["far"]["ratio"], BOUND, "ratio", raw)
