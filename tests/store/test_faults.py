"""Every step of publishing and removing fails once, and is the last one once: nothing partial is ever visible."""

import errno
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store import attempts
from lorafleet.store import volume as volumes
from lorafleet.store.collect import strays
from lorafleet.store.published import list_published, verify
from lorafleet.store.remove import remove, sweep_trash
from lorafleet.store.staging import sweep_staging
from tests.adapters import adapter
from tests.store.faulty import NEVER, FaultyFileSystem, Killed
from tests.store.remote import CHUNK, Remote, tarball, unreachable
from tests.store.volume import Volume

FAULTS = [None, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EROFS, errno.EACCES]


def _steps(tmp_path: Path) -> int:
    fs = FaultyFileSystem(NEVER, None)
    Volume.at(tmp_path / "probe").publish(fs=fs)
    return len(fs.steps)


def _all_served_are_whole(volume: Volume) -> None:
    for listed in list_published(volume.layout):
        verify(volume.layout, listed.served_name, deep=True)


@pytest.mark.parametrize("fault", FAULTS)
def test_no_step_of_publishing_leaves_a_partial_version(
    tmp_path: Path, fault: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "_ALIVE_SECONDS", 0.001)
    steps = _steps(tmp_path)
    assert steps > 20
    for at in range(steps):
        volume = Volume.at(tmp_path / str(at))
        fs = FaultyFileSystem(at, fault)
        try:
            volume.publish(fs=fs)
        except ArtifactError as error:
            assert error.reason is (
                Reason.VOLUME_FULL if fault in (errno.ENOSPC, errno.EDQUOT) else Reason.VOLUME_ERROR
            )
            assert error.retry
            # What could not be removed is swept later.
            assert not volume.leftovers() or fs.steps[at].startswith("remove_"), fs.steps[at]
        except Killed:
            assert fault is None
        else:
            # A volume may refuse to share files: each version then has its own.
            spared = ("remove_", "link ") if fault == errno.EACCES else ("remove_",)
            assert fs.steps[at].startswith(spared), f"{fs.steps[at]} failed and nobody noticed"
        _all_served_are_whole(volume)

        found = volume.publish()
        assert volume.served() == [found.served_name]
        verify(volume.layout, found.served_name, deep=True)


def test_ids_grow_whatever_step_a_job_died_at(tmp_path: Path) -> None:
    steps = _steps(tmp_path)
    volume = Volume.at(tmp_path / "one")
    seen = {volume.publish("0").id}
    for at in range(steps):
        with pytest.raises(Killed):
            volume.publish(adapter=f"py{at}", fs=FaultyFileSystem(at, None))
        found = volume.publish(adapter=f"py{at}").id
        assert found > max(seen)
        seen.add(found)


@pytest.mark.parametrize("fault", FAULTS)
def test_no_step_of_removing_leaves_a_partial_version(tmp_path: Path, fault: int | None) -> None:
    at = 0
    while True:
        volume = Volume.at(tmp_path / str(at))
        found = volume.publish()
        fs = FaultyFileSystem(at, fault)
        with suppress(ArtifactError, Killed):
            remove(volume.layout, found.served_name, fs)
        assert fs.reached or volume.served() == []
        _all_served_are_whole(volume)

        remove(volume.layout, found.served_name, FaultyFileSystem(NEVER, None))
        sweep_trash(volume.layout, FaultyFileSystem(NEVER, None))
        assert list(volume.layout.serving.iterdir()) == []
        assert not volume.leftovers()
        assert volume.publish().id > found.id
        if not fs.reached:
            break
        at += 1
    assert at > 5


@pytest.mark.parametrize("kind", ["files", "archive"])
def test_a_job_that_dies_at_any_step_of_a_fetch_is_finished_by_the_next(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "ABANDONED_SECONDS", -1.0)
    at = 0
    while True:
        volume = Volume.at(tmp_path / str(at))
        remote = _remote(volume, kind)
        fs = FaultyFileSystem(at, None)
        with suppress(Killed):
            volume.publish(source=remote, fs=fs)
        _all_served_are_whole(volume)
        found = volume.publish(source=remote)
        assert volume.served() == [found.served_name]
        verify(volume.layout, found.served_name, deep=True)
        sweep_staging(volume.layout, -1.0, FaultyFileSystem(NEVER, None))
        assert not volume.leftovers()
        if not fs.reached:
            break
        at += 3
    assert at > 20


@pytest.mark.parametrize("fault", [errno.EIO, errno.ESTALE])
def test_a_fetch_whose_volume_fails_at_any_step_is_finished_by_the_next(
    tmp_path: Path, fault: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "ABANDONED_SECONDS", -1.0)
    at = 0
    while True:
        volume = Volume.at(tmp_path / str(at))
        remote = _remote(volume, "files")
        fs = FaultyFileSystem(at, fault)
        with suppress(ArtifactError):
            volume.publish(source=remote, fs=fs)
        _all_served_are_whole(volume)
        verify(volume.layout, volume.publish(source=remote).served_name, deep=True)
        if not fs.reached:
            break
        at += 3


@pytest.mark.parametrize("kind", ["files", "archive"])
@pytest.mark.parametrize("checksum", [None, "sha256"])
def test_a_network_that_is_lost_at_any_chunk_never_shows_a_part(
    tmp_path: Path, kind: str, checksum: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "ABANDONED_SECONDS", -1.0)
    whole = _remote(Volume.at(tmp_path), kind, checksum)
    for name, data in whole.files.items():
        volume = Volume.at(tmp_path / name)
        for lost in range(0, len(data), CHUNK):
            remote = _remote(volume, kind, checksum)

            def lose(asked: str, at: int, name: str = name, lost: int = lost) -> None:
                if asked == name and at >= lost:
                    raise unreachable()

            remote.meddle = lose
            with pytest.raises(ArtifactError) as caught:
                volume.publish(source=remote)
            assert caught.value.reason is Reason.SOURCE_UNREACHABLE
            assert volume.served() == []
            assert len(volume.leftovers()) <= 1
        verify(volume.layout, volume.publish(source=whole).served_name, deep=True)
        assert not volume.leftovers()


@pytest.mark.parametrize("jump", [-1e9, 1e9])
def test_a_clock_that_jumps_changes_nothing(volume: Volume, jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    jumps = [0.0]
    monkeypatch.setattr("time.time", lambda: real() + jumps[0])
    (volume.layout.staging / "py.9.alive").mkdir()

    def jump_now(name: str, at: int) -> None:
        jumps[0] = jump - jumps[0]

    remote = _remote(volume, "files")
    remote.meddle = jump_now
    found = volume.publish(source=remote)
    assert sweep_staging(volume.layout, 3600.0, FaultyFileSystem(NEVER, None)) == 0
    assert strays(volumes.Volume(volume.layout), set()) == ()
    verify(volume.layout, found.served_name, deep=True)


def _remote(volume: Volume, kind: str, checksum: str | None = None) -> Remote:
    if kind == "archive":
        return Remote({"a.tar.gz": tarball(volume.claim / "a")}, checksum, archive=True)
    return Remote.of(volume.claim / "a", checksum=checksum)


def test_what_a_killed_job_staged_is_swept(volume: Volume) -> None:
    with pytest.raises(Killed):
        volume.publish(fs=FaultyFileSystem(8, None))
    assert volume.leftovers()
    assert sweep_staging(volume.layout, -1.0, FaultyFileSystem(NEVER, None)) == 1
    assert not volume.leftovers()


def test_a_volume_that_is_full_for_one_version_takes_a_smaller_one(volume: Volume) -> None:
    with pytest.raises(ArtifactError) as caught:
        volume.publish(fs=FaultyFileSystem(10, errno.ENOSPC))
    assert caught.value.reason is Reason.VOLUME_FULL
    adapter(volume.claim / "small", width=2)
    assert volume.publish("2", "small").id >= 1
