"""Jobs on one volume at once: they publish the same and other versions, remove, repair and collect."""

import itertools
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store import volume as volumes
from lorafleet.store.collect import collect
from lorafleet.store.fs import POSIX
from lorafleet.store.layout import Layout
from lorafleet.store.manifest import Manifest
from lorafleet.store.published import list_published, verify
from lorafleet.store.remove import remove
from lorafleet.store.room import used_bytes
from tests.adapters import adapter
from tests.store.remote import Remote
from tests.store.volume import Volume

SECONDS = 3.0
VERSIONS = ("1", "2", "3")


def _work(folder: Path, seed: int, seconds: float) -> list[Manifest]:
    """One Job after another: each publishes, removes or collects something. What was published."""
    volume = Volume(Layout(folder / "volume"), folder / "claim")
    chance, published = random.Random(seed), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        version, source = chance.choice(VERSIONS), chance.choice(("a", "b"))
        act = chance.random()
        if act < 0.6:
            remote = Remote.of(volume.claim / source, checksum=chance.choice((None, "sha256")))
            # Another Job may remove a folder, or take an attempt for abandoned, at any moment.
            with suppress(ArtifactError):
                published.append(volume.publish(version, chance.choice((source, remote))))
        elif act < 0.8:
            for listed in list_published(volume.layout):
                if f"/{version}-" in listed.served_name:
                    with suppress(ArtifactError):
                        remove(volume.layout, listed.served_name, POSIX)
        else:
            # Two sweeps of one folder may meet.
            with suppress(OSError):
                collect(volumes.Volume(volume.layout))
    return published


def _watch(volume: Volume, stop: threading.Event, wrong: list[str]) -> None:
    """An engine: whatever it sees in ``serving/`` is whole, or gone when it looks again."""
    while not stop.is_set():
        for listed in list_published(volume.layout):
            folder = volume.layout.serving / listed.served_name
            before = _which(folder)
            try:
                verify(volume.layout, listed.served_name, deep=True)
            except ArtifactError as error:
                if before is not None and _which(folder) == before:
                    wrong.append(error.message)


def _which(folder: Path) -> tuple[int, int] | None:
    """Tells a folder from one that comes in its place; None when there is none."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_ctime_ns


def _check(volume: Volume, published: list[Manifest]) -> None:
    by_id: dict[int, set[str]] = {}
    for one in published:
        by_id.setdefault(one.id, set()).add(one.served_name)
    assert by_id
    assert all(len(names) == 1 for names in by_id.values()), "an id was given twice"
    for listed in list_published(volume.layout):
        verify(volume.layout, listed.served_name, deep=True)
        remove(volume.layout, listed.served_name, POSIX)
    collect(volumes.Volume(volume.layout))
    assert list(volume.layout.blobs.iterdir()) == []
    assert volume.served() == []


def _run(tmp_path: Path, jobs: Callable[[Path], list[list[Manifest]]]) -> None:
    volume = Volume.at(tmp_path)
    adapter(volume.claim / "b", seed=4, files={"tokenizer.json": b"{}"})
    stop, wrong = threading.Event(), list[str]()
    watcher = threading.Thread(target=_watch, args=(volume, stop, wrong))
    watcher.start()
    try:
        published = jobs(tmp_path)
    finally:
        stop.set()
        watcher.join()
    assert wrong == []
    _check(volume, [one for found in published for one in found])


def test_jobs_in_processes_never_show_a_part_and_never_share_an_id(tmp_path: Path) -> None:
    def jobs(folder: Path) -> list[list[Manifest]]:
        with ProcessPoolExecutor(3) as pool:
            return list(pool.map(_work, [folder] * 3, range(3), [SECONDS] * 3))

    _run(tmp_path, jobs)


def test_jobs_in_threads_never_show_a_part_and_never_share_an_id(tmp_path: Path) -> None:
    def jobs(folder: Path) -> list[list[Manifest]]:
        found: list[list[Manifest]] = []
        threads = [
            threading.Thread(target=lambda seed=seed: found.append(_work(folder, seed, SECONDS))) for seed in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    _run(tmp_path, jobs)


def test_jobs_on_different_versions_never_fail_because_of_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorafleet.store.collect.EMPTY_SECONDS", -1.0)
    volume = Volume.at(tmp_path)

    def job(number: int) -> list[str]:
        served, end = [], time.monotonic() + SECONDS
        for version in itertools.count():
            if time.monotonic() > end:
                return served
            served.append(volume.publish(str(version), adapter=f"a{number}-{version}").served_name)
            collect(volumes.Volume(volume.layout))
            used_bytes(volume.layout)
        return served

    with ThreadPoolExecutor(4) as pool:
        published = [name for found in pool.map(job, range(4)) for name in found]
    assert volume.served() == sorted(published)
    assert not volume.leftovers()
    assert len({(volume.layout.serving / name / "tokenizer.json").stat().st_ino for name in published}) == 1
