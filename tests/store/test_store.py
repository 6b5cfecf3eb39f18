"""The volume's folders, ids, removal, verification, sweeping."""

import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store import ids
from lorafleet.store.fs import POSIX
from lorafleet.store.layout import Layout, parse_served_name, prepare
from lorafleet.store.published import list_published, verify
from lorafleet.store.remove import remove, sweep_trash
from lorafleet.store.staging import sweep_staging
from tests.store.volume import Volume, tree


def _allocate(root: Path) -> list[int]:
    return [ids.allocate(Layout(root), 1, POSIX) for _ in range(50)]


def test_two_jobs_at_once_never_get_the_same_id(volume: Volume) -> None:
    with ProcessPoolExecutor(4) as pool:
        taken = [number for numbers in pool.map(_allocate, [volume.layout.root] * 4) for number in numbers]
    assert sorted(taken) == list(range(1, 201))


def test_ids_start_at_one_and_follow_the_highest_of_volume_and_fleet(volume: Volume) -> None:
    assert [ids.allocate(volume.layout, low, POSIX) for low in (1, 1, 40, 7)] == [1, 2, 40, 41]
    for name in ("junk", "007", "-5", "9" * 30, "²"):
        (volume.layout.ids / name).touch()
    assert ids.allocate(volume.layout, 1, POSIX) == 42


def test_an_id_is_not_given_again_after_its_version_is_gone(volume: Volume) -> None:
    first = volume.publish()
    remove(volume.layout, first.served_name, POSIX)
    assert volume.publish().id == 2


def test_a_lost_volume_goes_on_after_the_highest_id_of_the_fleet(volume: Volume) -> None:
    volume.publish()
    shutil.rmtree(volume.layout.root)
    volume.layout.root.mkdir()
    prepare(volume.layout, POSIX)
    assert volume.publish(min_id=2).id == 2


def test_a_removed_version_is_gone_with_its_empty_adapter(volume: Volume) -> None:
    first, second = volume.publish("1"), volume.publish("2")
    assert remove(volume.layout, first.served_name, POSIX)
    assert volume.served() == [second.served_name]
    assert not remove(volume.layout, first.served_name, POSIX)
    assert remove(volume.layout, second.served_name, POSIX)
    assert list(volume.layout.serving.iterdir()) == []
    assert not volume.leftovers()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "py",
        "../ids",
        "../../etc-0123456789ab",
        "py/../x-0123456789ab",
        "/etc/x-0123456789ab",
        "py/.-0123456789ab",
        "py/1.0-0123456789AB",
        "py/1.0-0123456789ab/..",
        "py/1.0-0123456789ab\n",
        "Py/1.0-0123456789ab",
        "py//1.0-0123456789ab",
        "a" * 64 + "/1-0123456789ab",
    ],
)
def test_names_that_are_no_served_names_remove_nothing(volume: Volume, name: str) -> None:
    volume.publish()
    before = tree(volume.layout.root)
    for act in (lambda: remove(volume.layout, name, POSIX), lambda: verify(volume.layout, name)):
        with pytest.raises(ArtifactError) as caught:
            act()
        assert caught.value.reason is Reason.UNSAFE_PATH
    assert tree(volume.layout.root) == before


@given(st.text(max_size=60) | st.from_regex(r"[a-z./-]{1,8}/[A-Za-z0-9./-]{1,8}-[0-9a-f]{12}", fullmatch=True))
def test_every_served_name_is_a_place_two_below_serving(name: str) -> None:
    try:
        parse_served_name(name)
    except ArtifactError:
        return
    assert Path(os.path.normpath(f"/s/{name}")).parent.parent == Path("/s")


def test_removing_a_link_does_not_touch_what_it_points_to(volume: Volume) -> None:
    found = volume.publish()
    outside = volume.claim / "a"
    before = tree(outside)
    (volume.folder(found) / "link").symlink_to(outside)
    link = volume.layout.serving / "py" / "2-0123456789ab"
    link.symlink_to(outside)
    assert remove(volume.layout, found.served_name, POSIX)
    assert remove(volume.layout, "py/2-0123456789ab", POSIX)
    assert tree(outside) == before


def test_an_adapter_folder_that_is_a_link_is_not_followed(volume: Volume) -> None:
    found = volume.publish()
    (volume.layout.serving / "other").symlink_to("py")
    with pytest.raises(ArtifactError) as caught:
        remove(volume.layout, found.served_name.replace("py/", "other/"), POSIX)
    assert caught.value.reason is Reason.VOLUME_ERROR
    assert found.served_name in volume.served()


def test_trash_is_swept(volume: Volume) -> None:
    (volume.layout.trash / "x" / "y").mkdir(parents=True)
    sweep_trash(volume.layout, POSIX)
    assert not volume.leftovers()


def test_only_staging_that_nobody_writes_to_is_swept(volume: Volume) -> None:
    old, alive = volume.layout.staging / "old", volume.layout.staging / "alive"
    for folder in (old, alive):
        folder.mkdir()
        (folder / "weights").touch()
        os.utime(folder, (0, 0))
    os.utime(old / "weights", (0, 0))
    assert sweep_staging(volume.layout, 3600.0, POSIX) == 1
    assert volume.leftovers() == ["alive"]


def test_age_is_told_by_the_volumes_clock(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    (volume.layout.staging / "new").mkdir()
    monkeypatch.setattr("time.time", lambda: 4e9)
    assert sweep_staging(volume.layout, 3600.0, POSIX) == 0


def test_published_versions_are_listed_with_what_is_wrong_with_them(volume: Volume) -> None:
    good, bad = volume.publish("1"), volume.publish("2")
    (volume.folder(bad) / "lorafleet.json").unlink()
    (volume.layout.serving / "py" / "stranger").mkdir()
    listed = {one.served_name: (one.manifest, one.problem is None) for one in list_published(volume.layout)}
    assert listed == {good.served_name: (good, True), bad.served_name: (None, False), "py/stranger": (None, False)}


def test_the_deep_check_reads_every_byte(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafleet.store.published.QUICK_BYTES", 10)
    found = volume.publish()
    weights = volume.folder(found) / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert verify(volume.layout, found.served_name) == found
    with pytest.raises(ArtifactError) as caught:
        verify(volume.layout, found.served_name, deep=True)
    assert "adapter_model.safetensors" in caught.value.message


def test_a_manifest_that_was_forged_to_fit_other_weights_is_noticed(volume: Volume) -> None:
    found = volume.publish()
    folder = volume.folder(found)
    text = (folder / "lorafleet.json").read_text()
    weights = next(file for file in found.files if file.path.endswith(".safetensors"))
    forged = text[: text.index('"files"')] + text[text.index('"files"') :].replace(weights.sha256, "0" * 64)
    (folder / "lorafleet.json").write_text(forged)
    with pytest.raises(ArtifactError, match="is not the source's"):
        verify(volume.layout, found.served_name)


def test_preparing_twice_changes_nothing(volume: Volume) -> None:
    volume.publish()
    before = tree(volume.layout.root)
    prepare(volume.layout, POSIX)
    assert tree(volume.layout.root) == before


def test_engines_can_enter_the_serving_folder_that_an_admin_made(volume: Volume) -> None:
    volume.layout.serving.chmod(0o700)
    prepare(volume.layout, POSIX)
    assert volume.layout.serving.stat().st_mode & 0o777 == 0o755


def test_a_volume_that_is_not_mounted_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as caught:
        prepare(Layout(tmp_path / "missing"), POSIX)
    assert caught.value.reason is Reason.VOLUME_ERROR


def test_folders_on_two_file_systems_are_refused(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.lstat

    def lstat(path: Path) -> Any:
        found = list(real(path))
        found[2] = 99 if path == volume.layout.staging else found[2]
        return os.stat_result(found)

    monkeypatch.setattr(Path, "lstat", lstat)
    with pytest.raises(ArtifactError, match="file systems"):
        prepare(volume.layout, POSIX)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_of_the_volume_that_is_something_else_is_refused(volume: Volume, kind: str) -> None:
    volume.layout.blobs.rmdir()
    if kind == "file":
        volume.layout.blobs.touch()
    else:
        volume.layout.blobs.symlink_to(volume.claim)
    with pytest.raises(ArtifactError, match="no folder"):
        prepare(volume.layout, POSIX)
