"""What is collected, and what is only reported."""

import hashlib
import os
from pathlib import Path

import pytest

from lorafleet.store import volume as volumes
from lorafleet.store.collect import MAX_STRAYS, collect, strays
from lorafleet.store.published import verify
from tests.store.volume import Volume


def _old(path: Path, seconds: float = 2 * 3600.0) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def _short(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def test_an_old_folder_that_no_status_names_is_reported_and_stays(volume: Volume) -> None:
    found = [volume.publish(str(number)) for number in range(3)]
    for one in found[:2]:
        _old(volume.folder(one))
    opened = volumes.Volume(volume.layout)
    assert strays(opened, {_short(found[0].served_name)}) == (found[1].served_name,)
    collect(opened)
    assert len(volume.served()) == 3


def test_no_more_strays_are_reported_than_are_of_use(volume: Volume) -> None:
    for number in range(MAX_STRAYS + 5):
        folder = volume.layout.serving / "py" / f"{number}-0123456789ab"
        folder.mkdir(parents=True)
        _old(folder)
    assert len(strays(volumes.Volume(volume.layout), set())) == MAX_STRAYS


def test_age_is_told_by_the_volumes_clock(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    volume.publish()
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert strays(volumes.Volume(volume.layout), set()) == ()


def test_garbage_goes_and_versions_stay(volume: Volume) -> None:
    found = volume.publish()
    for name in ("empty", "young"):
        (volume.layout.serving / name).mkdir()
    _old(volume.layout.serving / "empty")
    (volume.layout.trash / "x" / "y").mkdir(parents=True)
    old = volume.layout.staging / "py.1.0123"
    old.mkdir()
    _old(old, 25 * 3600.0)
    (volume.layout.staging / "py.1.4567").mkdir()
    collect(volumes.Volume(volume.layout))
    assert volume.leftovers() == ["py.1.4567"]
    assert sorted(path.name for path in volume.layout.serving.iterdir()) == ["py", "young"]
    assert len(list(volume.layout.blobs.iterdir())) == 3
    verify(volume.layout, found.served_name, deep=True)


def test_nothing_that_is_a_link_is_collected_through(volume: Volume) -> None:
    (volume.layout.serving / "link").symlink_to(volume.claim)
    collect(volumes.Volume(volume.layout))
    assert (volume.claim / "a").is_dir()
