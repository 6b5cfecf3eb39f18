"""What publishing leaves on the volume."""

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.digest import digest as digest_of
from lorafleet.artifacts.digest import hash_file
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store import manifest as manifests
from lorafleet.store.fs import POSIX, Chunk, PosixFileSystem
from tests.adapters import adapter
from tests.store.faulty import NEVER, FaultyFileSystem
from tests.store.volume import FLEET, MODEL, Volume, tree


@pytest.fixture(params=[0o022, 0o077])
def umask(request: Any) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def _refused(volume: Volume, *args: str, **changes: Any) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        volume.publish(*args, **changes)
    assert not volume.leftovers()
    return caught.value


def test_a_version_is_served_under_the_digest_of_its_source(volume: Volume) -> None:
    found = volume.publish("1.2.0")
    source = volume.claim / "a"
    assert found.digest == digest_of(hash_file(source, path.name) for path in source.iterdir())
    assert volume.served() == [found.served_name] == [f"py/1.2.0-{found.digest[7:19]}"]
    assert found.id == 1
    assert manifests.read(volume.folder(found)) == found
    assert not volume.leftovers()


def test_only_the_base_model_of_the_configuration_differs_from_the_source(volume: Volume) -> None:
    (volume.claim / "a" / "optimizer.pt").write_bytes(b"pickle")
    published, source = tree(volume.folder(volume.publish())), tree(volume.claim / "a")
    config = json.loads(published.pop("adapter_config.json"))
    assert config == json.loads(source.pop("adapter_config.json")) | {"base_model_name_or_path": MODEL}
    del published["lorafleet.json"], source["optimizer.pt"]
    assert published == source


def test_the_manifest_describes_the_published_files(volume: Volume) -> None:
    found = volume.publish()
    folder = volume.folder(found)
    names = sorted(path.name for path in folder.iterdir() if path.name != "lorafleet.json")
    assert [file.as_digest for file in found.files] == [hash_file(folder, name) for name in names]
    assert found.size_bytes == sum((folder / name).stat().st_size for name in names)
    assert (found.rank, found.target_modules, found.model) == (8, ("q_proj", "v_proj"), MODEL)
    assert found.source == {"scheme": "volume", "path": "a"}


def test_any_user_can_read_what_is_published(volume: Volume, umask: None) -> None:
    for path in (volume.claim / "a").iterdir():
        path.chmod(0o600)
    folder = volume.folder(volume.publish())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder)}
    assert set(modes.values()) == {0o755}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


def test_publishing_again_keeps_folder_and_id_and_copies_nothing(volume: Volume) -> None:
    first = volume.publish()
    fs = FaultyFileSystem(NEVER, None)
    before = volume.folder(first).stat().st_mtime_ns
    assert volume.publish(fs=fs) == first
    assert fs.steps == []
    assert volume.folder(first).stat().st_mtime_ns == before


def test_a_pinned_version_that_is_published_does_not_need_its_source(volume: Volume) -> None:
    first = volume.publish()
    shutil.rmtree(volume.claim)
    assert volume.publish(digest=first.digest) == first


def test_new_bytes_get_a_new_place_and_a_new_id(volume: Volume) -> None:
    first = volume.publish()
    kept = tree(volume.folder(first))
    adapter(volume.claim / "a", seed=5)
    second = volume.publish()
    assert second.served_name != first.served_name
    assert (first.id, second.id) == (1, 2)
    assert tree(volume.folder(first)) == kept


def test_the_same_bytes_as_another_version_get_a_new_place_and_a_new_id(volume: Volume) -> None:
    found = [volume.publish("1.0"), volume.publish("1.0-rc"), volume.publish("1.0", adapter="other")]
    assert [manifest.id for manifest in found] == [1, 2, 3]
    assert len(volume.served()) == 3


def test_a_pin_is_compared_before_anything_is_visible(volume: Volume) -> None:
    error = _refused(volume, digest="sha256:" + "0" * 64)
    assert error.reason is Reason.DIGEST_MISMATCH
    assert volume.served() == []
    assert not list(volume.layout.ids.iterdir())


def test_a_pin_that_fits_is_served(volume: Volume) -> None:
    digest = volume.publish("1").digest
    assert volume.publish("2", digest=digest).digest == digest


def test_a_refused_adapter_leaves_nothing(volume: Volume) -> None:
    adapter(volume.claim / "a", use_dora=True)
    assert _refused(volume).reason is Reason.FEATURE_NOT_SUPPORTED
    assert volume.served() == []


def test_the_copy_is_checked_not_the_source(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    # Between the check and the copy a source could become anything; so the source is copied first.
    def swap(done: int, total: int | None) -> None:
        if done == total:
            adapter(volume.claim / "a", use_dora=True)

    assert _refused(volume, progress=swap).reason is Reason.SOURCE_CHANGED


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "lorafleet.json").unlink(),
        lambda folder: (folder / "lorafleet.json").write_text("{}"),
        lambda folder: (folder / "adapter_model.safetensors").unlink(),
        lambda folder: (folder / "adapter_model.safetensors").open("ab").write(b"x"),
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        lambda folder: (folder / "extra.py").write_text("x"),
        lambda folder: (folder / "adapter_config.json").chmod(0o600),
        lambda folder: folder.chmod(0o700),
        lambda folder: [path.unlink() for path in folder.iterdir()],
    ],
)
@pytest.mark.parametrize("pinned", [False, True])
def test_a_damaged_folder_is_neither_served_nor_overwritten(volume: Volume, damage: Any, pinned: bool) -> None:
    first = volume.publish()
    damage(volume.folder(first))
    before = tree(volume.folder(first))
    error = _refused(volume, **({"digest": first.digest} if pinned else {}))
    assert error.reason is Reason.VOLUME_ERROR
    assert first.served_name in error.message
    assert tree(volume.folder(first)) == before


def test_what_was_published_for_other_expectations_is_checked_again(volume: Volume) -> None:
    volume.publish()
    assert _refused(volume, expectations=replace(FLEET, max_rank=4)).reason is Reason.RANK_TOO_HIGH
    assert _refused(volume, expectations=replace(FLEET, base_models=("b",))).reason is Reason.BASE_MODEL_MISMATCH


def test_a_full_volume_is_noticed_before_the_copy(volume: Volume) -> None:
    class Full(PosixFileSystem):
        def free_bytes(self, path: Path) -> int:
            return 1234

        def write_file(self, path: Path, chunks: Iterable[Chunk], *, sync: bool = True) -> None:
            assert path.parent.name not in ("parts", "tree"), "copied"
            super().write_file(path, chunks, sync=sync)

    error = _refused(volume, fs=Full())
    assert error.reason is Reason.VOLUME_FULL
    assert "1234" in error.message


def test_a_volume_that_does_not_tell_its_size_is_used(volume: Volume) -> None:
    class Silent(PosixFileSystem):
        def free_bytes(self, path: Path) -> None:
            return None

    assert volume.publish(fs=Silent()).id == 1


def test_an_adapter_folder_that_is_a_link_is_refused(volume: Volume, tmp_path: Path) -> None:
    (volume.layout.serving / "py").symlink_to(tmp_path)
    assert _refused(volume).reason is Reason.VOLUME_ERROR


def test_the_folder_of_an_adapter_may_vanish_while_a_version_arrives(volume: Volume) -> None:
    class Racing(PosixFileSystem):
        races = 2

        def rename(self, source: Path, target: Path) -> None:
            if target.parent.name == "py" and self.races:
                self.races -= 1
                target.parent.rmdir()
            POSIX.rename(source, target)

    found = volume.publish(fs=Racing())
    assert volume.served() == [found.served_name]


def test_the_folder_of_an_adapter_may_vanish_as_soon_as_it_is_made(volume: Volume) -> None:
    class Racing(PosixFileSystem):
        races = 2

        def make_folder(self, path: Path, mode: int = 0o755) -> None:
            POSIX.make_folder(path, mode)
            if path.name == "py" and self.races:
                self.races -= 1
                path.rmdir()
                # What chmod says then.
                raise FileNotFoundError(errno.ENOENT, "gone")

    found = volume.publish(fs=Racing())
    assert volume.served() == [found.served_name]


def test_the_second_of_two_jobs_takes_what_the_first_published(volume: Volume) -> None:
    class Slow(PosixFileSystem):
        first = None

        def rename(self, source: Path, target: Path) -> None:
            if target.parent.name == "py":
                self.first = volume.publish()
            POSIX.rename(source, target)

    slow = Slow()
    assert volume.publish(fs=slow) == slow.first
    assert len(volume.served()) == 1
    assert not volume.leftovers()


def test_progress_that_raises_ends_the_transfer_and_leaves_nothing(volume: Volume) -> None:
    class Enough(Exception):
        pass

    def progress(done: int, total: int | None) -> None:
        raise Enough

    with pytest.raises(Enough):
        volume.publish(progress=progress)
    assert not volume.leftovers()
    assert volume.served() == []
