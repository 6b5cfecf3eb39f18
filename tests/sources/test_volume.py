"""A source on a claim: nothing outside it is read, and what changes meanwhile is noticed."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.api.sources import Source
from lorafleet.api.sources import VolumeSource as VolumeSpec
from lorafleet.artifacts.digest import FileDigest, hash_file
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, Wanted
from lorafleet.sources import Place, open_source
from lorafleet.sources.volume import VolumeSource
from tests.adapters import adapter


def _nothing() -> object:
    return None


def _fetch(source: VolumeSource, when: str = "", meddle: Callable[[], object] = _nothing) -> tuple[FileDigest, ...]:
    """All files, hashed; ``meddle`` is called after the first bytes of the file ``when``."""
    listing, found = source.listing(), []
    for file in listing.files:
        content = hashlib.sha256()
        for number, chunk in enumerate(source.read(file, 0)):
            content.update(chunk)
            if number == 0 and file.path == when:
                meddle()
        found.append(FileDigest(file.path, file.size or 0, content.hexdigest()))
    source.confirm(listing)
    return tuple(found)


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    claim = tmp_path / "claim"
    adapter(claim / "in" / "a", files={"tokenizer.json": b"{}"})
    return claim


def _refused(source: VolumeSource) -> Reason:
    with pytest.raises(ArtifactError) as listed:
        source.listing()
    return listed.value.reason


def test_the_adapters_files_are_fetched_as_they_are(claim: Path) -> None:
    (claim / "in" / "a" / "adapter_model.bin").write_bytes(b"pickle")
    source = VolumeSource(claim, "in/a")
    names = ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json"]
    assert _fetch(source) == tuple(hash_file(claim / "in/a", name) for name in names)
    assert [file.path for file in source.listing().files] == names


@pytest.mark.parametrize("path", ["/etc", "../outside", "in/../../outside", "in/a\0"])
def test_paths_out_of_the_claim_are_refused(claim: Path, path: str) -> None:
    adapter(claim.parent / "outside")
    assert _refused(VolumeSource(claim, path)) is Reason.UNSAFE_PATH


def test_a_folder_that_is_a_link_out_of_the_claim_is_refused(claim: Path) -> None:
    adapter(claim.parent / "outside")
    (claim / "link").symlink_to("../outside")
    assert _refused(VolumeSource(claim, "link")) is Reason.UNSAFE_PATH


def test_nothing_is_told_about_a_folder_out_of_the_claim(claim: Path) -> None:
    (claim.parent / "private").mkdir()
    (claim / "link").symlink_to("../private")
    assert _refused(VolumeSource(claim, "link")) is Reason.UNSAFE_PATH


def test_a_file_that_is_a_link_out_of_the_claim_is_refused(claim: Path) -> None:
    secret = claim.parent / "secret"
    secret.write_bytes(b"secret")
    (claim / "in/a/README.md").symlink_to(secret)
    assert _refused(VolumeSource(claim, "in/a")) is Reason.UNSAFE_PATH


def test_a_claim_whose_name_begins_like_another_is_not_it(claim: Path) -> None:
    adapter(claim.parent / "claim-2")
    (claim / "link").symlink_to("../claim-2")
    assert _refused(VolumeSource(claim, "link")) is Reason.UNSAFE_PATH


def test_links_within_the_claim_are_followed(claim: Path) -> None:
    blob = claim / "blobs" / "abc"
    blob.parent.mkdir()
    weights = claim / "in/a/adapter_model.safetensors"
    weights.rename(blob)
    weights.symlink_to("../../blobs/abc")
    assert len(_fetch(VolumeSource(claim, "in/a"))) == 3


def test_a_pipe_does_not_hang_and_is_refused(claim: Path) -> None:
    os.mkfifo(claim / "in/a/README.md")
    assert _refused(VolumeSource(claim, "in/a")) is Reason.UNSAFE_PATH


def test_a_loop_of_links_is_an_error_of_the_claim(claim: Path) -> None:
    (claim / "loop").symlink_to("loop")
    assert _refused(VolumeSource(claim, "loop")) is Reason.VOLUME_ERROR


@pytest.mark.parametrize("path", ["nowhere", "in/a/adapter_config.json"])
def test_a_folder_that_is_not_there_is_not_found(claim: Path, path: str) -> None:
    assert _refused(VolumeSource(claim, path)) is Reason.SOURCE_NOT_FOUND


def test_limits_hold_before_anything_is_copied(claim: Path) -> None:
    assert _refused(VolumeSource(claim, "in/a", Wanted(Limits(max_bytes=10)))) is Reason.SIZE_LIMIT_EXCEEDED
    assert _refused(VolumeSource(claim, "in/a", Wanted(Limits(max_entries=2)))) is Reason.SIZE_LIMIT_EXCEEDED


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _overwrite_keeping_times(path: Path) -> None:
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


_WEIGHTS = "adapter_model.safetensors"


@pytest.mark.parametrize(
    ("when", "meddle"),
    [
        (_WEIGHTS, lambda folder: _append(folder / _WEIGHTS)),
        (_WEIGHTS, lambda folder: (folder / _WEIGHTS).open("wb").close()),
        (_WEIGHTS, lambda folder: _overwrite_keeping_times(folder / _WEIGHTS)),
        ("tokenizer.json", lambda folder: _overwrite_keeping_times(folder / "adapter_config.json")),
        ("adapter_config.json", lambda folder: _overwrite_keeping_times(folder / _WEIGHTS)),
        (_WEIGHTS, lambda folder: adapter(folder, seed=7)),
        (_WEIGHTS, lambda folder: (folder / "merges.txt").write_bytes(b"")),
        ("tokenizer.json", lambda folder: (folder / "tokenizer.json").unlink()),
    ],
)
def test_a_source_that_changes_while_it_is_read_is_noticed(
    claim: Path, when: str, meddle: Callable[[Path], object]
) -> None:
    folder = claim / "in/a"
    with pytest.raises(ArtifactError) as caught:
        _fetch(VolumeSource(claim, "in/a"), when, lambda: meddle(folder))
    assert caught.value.reason is Reason.SOURCE_CHANGED
    assert caught.value.retry


def test_a_file_that_is_no_part_of_the_adapter_may_change(claim: Path) -> None:
    source = VolumeSource(claim, "in/a")
    meddled = _fetch(source, _WEIGHTS, lambda: (claim / "in/a/optimizer.pt").write_bytes(b"x"))
    assert meddled == _fetch(source)


@pytest.mark.parametrize("start", [0, 1, 100, 10_000])
def test_a_file_is_read_from_any_byte_on(claim: Path, start: int) -> None:
    source = VolumeSource(claim, "in/a")
    for file in source.listing().files:
        whole = (claim / "in/a" / file.path).read_bytes()
        assert b"".join(map(bytes, source.read(file, start))) == whole[start:]


def test_a_file_that_was_replaced_is_not_read_on(claim: Path) -> None:
    source = VolumeSource(claim, "in/a")
    weights = next(file for file in source.listing().files if file.path == _WEIGHTS)
    adapter(claim / "in/a", seed=3)
    with pytest.raises(ArtifactError) as caught:
        list(source.read(weights, 10))
    assert caught.value.reason is Reason.SOURCE_CHANGED


def test_a_source_without_its_claim_is_not_supported() -> None:
    with pytest.raises(ArtifactError) as caught:
        open_source(Source(volume=VolumeSpec(path="x")), Place(), Wanted())
    assert caught.value.reason is Reason.SOURCE_NOT_SUPPORTED
