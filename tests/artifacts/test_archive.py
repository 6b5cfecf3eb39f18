"""What comes out of archives, and which archives are refused before any of their files is served."""

import io
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard

from lorafleet.api.reasons import Reason
from lorafleet.artifacts import inflate, tar_archive
from lorafleet.artifacts.archive import unpack
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import Limits, Wanted
from tests.artifacts.archives import FORMATS, adapter_files, compress, pack, tar

FILES = adapter_files()
WANTED = Wanted(Limits(max_bytes=8 * 1024**2, max_side_file_bytes=1024**2, max_entries=100))
FILE = tarfile.REGTYPE


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def read(path: Path, data: bytes, wanted: Wanted = WANTED, subfolder: str | None = None) -> dict[str, bytes]:
    path.write_bytes(data)
    found = {}
    for name, size, chunks in unpack(path, wanted, subfolder, "archive a"):
        found[name] = b"".join(map(bytes, chunks))
        assert len(found[name]) == size
    return found


def refused(path: Path, data: bytes, reason: Reason = Reason.ARCHIVE_INVALID, wanted: Wanted = WANTED) -> str:
    with pytest.raises(ArtifactError) as caught:
        read(path, data, wanted)
    assert caught.value.reason is reason, caught.value.message
    return caught.value.message


def members(**more: tuple[bytes, bytes]) -> list[tuple[str, bytes, bytes]]:
    return [(name, FILE, content) for name, content in FILES.items()] + [(n, k, c) for n, (k, c) in more.items()]


@pytest.mark.parametrize("form", FORMATS)
def test_the_adapter_of_each_format_is_read(archive: Path, form: str) -> None:
    assert read(archive, pack(FILES, form)) == FILES


@pytest.mark.parametrize("form", FORMATS)
def test_only_files_of_the_adapter_are_read(archive: Path, form: str) -> None:
    others = {"optimizer.pt": b"x" * 1000, "run.py": b"evil", "checkpoint-1/adapter_config.json": b"{}"}
    assert read(archive, pack(others | FILES, form)) == FILES


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("prefix", ["./", "adapter/", "./a/b/", "a//./b/", "long" * 20 + "/" + "name" * 10 + "/"])
def test_the_uppermost_folder_with_a_configuration_is_the_adapter(archive: Path, form: str, prefix: str) -> None:
    files = {prefix + name: content for name, content in FILES.items()}
    below = {f"{prefix}checkpoint-10/{name}": b"older" for name in FILES}
    assert read(archive, pack(below | files, form)) == FILES


@pytest.mark.parametrize("form", FORMATS)
def test_a_subfolder_is_the_adapter_when_it_is_named(archive: Path, form: str) -> None:
    files = {f"x/y/{name}": content for name, content in FILES.items()} | dict.fromkeys(FILES, b"another")
    assert read(archive, pack(files, form), subfolder="x/./y/") == FILES


def test_a_subfolder_that_is_not_there_is_named(archive: Path) -> None:
    with pytest.raises(ArtifactError, match="folder 'other' of archive a") as caught:
        read(archive, pack(FILES), subfolder="other")
    assert caught.value.reason is Reason.CONFIG_MISSING


@pytest.mark.parametrize("subfolder", ["..", "a/../..", "/etc"])
def test_a_subfolder_stays_inside(archive: Path, subfolder: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        read(archive, pack(FILES), subfolder=subfolder)
    assert caught.value.reason is Reason.UNSAFE_PATH


def test_two_adapters_need_a_subfolder(archive: Path) -> None:
    data = pack({f"{folder}/{name}": content for folder in "ab" for name, content in FILES.items()})
    assert "subfolder" in refused(archive, data, Reason.SOURCE_INVALID)


def test_an_archive_without_an_adapter_says_so(archive: Path) -> None:
    refused(archive, pack({"x": b"y"}), Reason.CONFIG_MISSING)


def test_chosen_files_are_those_of_every_source(archive: Path) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.bin": b"PK", "model.sig": b"{}"}
    refused(archive, pack(files), Reason.PICKLE_REFUSED)
    assert set(read(archive, pack(files), Wanted(pickle=True))) == {"adapter_config.json", "adapter_model.bin"}
    assert set(read(archive, pack(FILES | {"model.sig": b"{}"}), Wanted(signature=True))) == {*FILES, "model.sig"}
    refused(archive, pack(FILES), Reason.SIGNATURE_MISSING, Wanted(signature=True))


def test_chunks_that_nobody_read_do_not_shift_the_next_file(archive: Path) -> None:
    for form in FORMATS:
        archive.write_bytes(pack(FILES, form))
        found = {}
        for name, _, chunks in unpack(archive, WANTED, None, "a"):
            if name == "README.md":
                found[name] = b"".join(map(bytes, chunks))
        assert found == {"README.md": FILES["README.md"]}


# Names and kinds.


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", ".."])
def test_a_path_that_leads_out_is_refused_wherever_it_is(archive: Path, form: str, name: str) -> None:
    refused(archive, pack(FILES | {name: b"x"}, form), Reason.UNSAFE_PATH)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "adapter_config.json"])
def test_a_link_for_a_file_of_the_adapter_is_refused(archive: Path, kind: bytes, target: str) -> None:
    refused(archive, tar(members(LICENSE=(kind, target.encode()))), Reason.UNSAFE_PATH)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_elsewhere_is_left_out(archive: Path, kind: bytes) -> None:
    assert read(archive, tar(members(latest=(kind, b"/etc/passwd")))) == FILES


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_refused_wherever_they_are(archive: Path, kind: bytes) -> None:
    refused(archive, tar(members(other=(kind, b""))), Reason.UNSAFE_PATH)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, FILE])
def test_a_folder_that_is_something_else_too_is_refused(archive: Path, kind: bytes) -> None:
    inside = [(f"a/{name}", FILE, content) for name, content in FILES.items()]
    refused(archive, tar([("a", kind, b"b"), *inside]), Reason.UNSAFE_PATH)


def test_a_folder_for_a_file_of_the_adapter_is_refused(archive: Path) -> None:
    refused(archive, tar(members(LICENSE=(tarfile.DIRTYPE, b""))), Reason.UNSAFE_PATH)


@pytest.mark.parametrize("name", ["README.md", "./README.md", "other"])
def test_a_name_that_is_there_twice_is_refused(archive: Path, name: str) -> None:
    refused(archive, tar([*members(other=(FILE, b"")), (name, FILE, b"other")]))


def test_folders_may_be_there_twice(archive: Path) -> None:
    folder = ("a", tarfile.DIRTYPE, b"")
    assert read(archive, tar([folder, folder, *members()])) == FILES


@pytest.mark.parametrize(("mode", "reason"), [(stat.S_IFLNK, True), (stat.S_IFCHR, True), (stat.S_IFREG, False)])
def test_a_zip_can_hold_links_and_devices_too(archive: Path, mode: int, reason: bool) -> None:
    out = io.BytesIO(pack(FILES, "zip"))
    with zipfile.ZipFile(out, "a") as file:
        info = zipfile.ZipInfo("LICENSE")
        info.external_attr = (mode | 0o777) << 16
        file.writestr(info, b"/etc/passwd")
    if reason:
        refused(archive, out.getvalue(), Reason.UNSAFE_PATH)
    else:
        assert "LICENSE" in read(archive, out.getvalue())


# Layers.


def layers(folder: Path, *contents: dict[str, bytes], subfolder: str | None = None) -> dict[str, bytes]:
    paths = [folder / f"layer-{number:03}" for number in range(len(contents))]
    for path, files, form in zip(paths, contents, FORMATS * 9, strict=False):
        path.write_bytes(pack(files, form))
    return {name: b"".join(map(bytes, chunks)) for name, _, chunks in unpack(paths, WANTED, subfolder, "image i")}


def test_layers_are_one_tree_whose_later_files_replace_earlier_ones(tmp_path: Path) -> None:
    first = FILES | {"README.md": b"old", "LICENSE": b"MIT"}
    assert layers(tmp_path, first, {"README.md": FILES["README.md"]}) == FILES | {"LICENSE": b"MIT"}


def test_a_whiteout_removes_what_earlier_layers_have(tmp_path: Path) -> None:
    below = {f"old/{name}": content for name, content in FILES.items()}
    new = {f"new/{name}": content for name, content in FILES.items()}
    with pytest.raises(ArtifactError, match="several adapters"):
        layers(tmp_path, below, new)
    for mark in (".wh.old", "old/.wh.adapter_config.json", "old/.wh..wh..opq"):
        assert layers(tmp_path, below, new | {mark: b""}) == FILES
    with pytest.raises(ArtifactError, match=r"has no adapter_config\.json"):
        layers(tmp_path, FILES, {".wh..wh..opq": b""})


def test_a_whiteout_does_not_remove_what_its_own_or_a_later_layer_has(tmp_path: Path) -> None:
    readme = {"README.md": FILES["README.md"]}
    assert layers(tmp_path, FILES, {".wh.README.md": b""} | readme) == FILES
    assert layers(tmp_path, FILES, {".wh.README.md": b""}, readme) == FILES
    assert "README.md" not in layers(tmp_path, FILES, readme, {".wh.README.md": b""})


def test_a_file_in_the_place_of_a_folder_removes_the_folder(tmp_path: Path) -> None:
    below = {f"old/{name}": content for name, content in FILES.items()}
    new = {f"new/{name}": content for name, content in FILES.items()}
    assert layers(tmp_path, below, new | {"old": b""}) == FILES


def test_entries_of_all_layers_count(tmp_path: Path) -> None:
    many = [{f"{layer}/{number}": b"" for number in range(40)} for layer in range(3)]
    with pytest.raises(ArtifactError) as caught:
        layers(tmp_path, FILES, *many)
    assert caught.value.reason is Reason.SIZE_LIMIT_EXCEEDED


# Size.


def bomb(form: str) -> bytes:
    """64 MiB of zeros as the content of a file that is not even wanted, a thousandth of them to fetch."""
    info = tarfile.TarInfo("zeros")
    info.size = 64 * 1024**2
    stream = zstandard.ZstdCompressor().compressobj() if form == "tar.zst" else zlib.compressobj(wbits=31)
    parts = [info.tobuf(), *[bytes(1024**2)] * 64, pack(FILES)]
    return b"".join(map(stream.compress, parts)) + stream.flush()


@pytest.mark.parametrize("form", ["tar.gz", "tar.zst"])
def test_a_decompression_bomb_is_refused_in_little_memory(
    archive: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bomb(form)
    assert set(read(archive, data)) == set(FILES)
    monkeypatch.setattr(inflate, "FREE_BYTES", 16 * 1024**2)
    tracemalloc.start()
    assert "unpacks to more than" in refused(archive, data, Reason.SIZE_LIMIT_EXCEEDED, Wanted())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - len(data) < 16 * 1024**2


@pytest.mark.parametrize("form", ["tar.gz", "tar.zst"])
def test_what_is_not_wanted_counts_when_it_has_to_be_unpacked(
    archive: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_archive, "_SLACK_BYTES", 0)
    refused(archive, pack(FILES | {"optimizer.pt": bytes(9 * 1024**2)}, form), Reason.SIZE_LIMIT_EXCEEDED)
    assert read(archive, pack(FILES | {"optimizer.pt": bytes(7 * 1024**2)}, form)) == FILES


@pytest.mark.parametrize("form", FORMATS)
def test_the_limits_of_adapters_hold(archive: Path, form: str) -> None:
    large = {"adapter_model.safetensors": bytes(9 * 1024**2)}
    refused(archive, pack(FILES | large, form), Reason.SIZE_LIMIT_EXCEEDED)
    refused(archive, pack(FILES | {"README.md": bytes(1024**2 + 1)}, form), Reason.SIZE_LIMIT_EXCEEDED)
    many = {f"x/{number}": b"" for number in range(100)}
    refused(archive, pack(FILES | many, form), Reason.SIZE_LIMIT_EXCEEDED)


def test_a_zip_that_says_less_than_it_holds_is_refused(archive: Path) -> None:
    data = bytearray(pack(FILES | {"README.md": bytes(500_000)}, "zip"))
    for at in range(len(data) - 4):
        if data[at : at + 4] == struct.pack("<L", 500_000):
            data[at : at + 4] = struct.pack("<L", 400_000)
    assert "damaged" in refused(archive, bytes(data))


def test_a_window_of_gigabytes_is_refused(archive: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    refused(archive, compressor.compress(pack(FILES)) + compressor.flush())


def test_long_headers_are_refused_before_they_are_read(archive: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, 2 * 1024**2
        assert "header" in refused(archive, info.tobuf() + bytes(info.size) + pack(FILES))


def test_headers_without_end_are_refused(archive: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1
    header = info.tobuf() + b"x" + bytes(511)
    assert "more than 4 headers" in refused(archive, header * 5000 + pack(FILES))


# Whole, and one meaning.


@pytest.mark.parametrize("form", FORMATS)
def test_no_cut_is_accepted(archive: Path, form: str) -> None:
    data = pack(FILES, form)
    # A tar ends with two blocks of zeros and is padded with more of them; one of the two will do.
    last = len(data.rstrip(b"\0")) // 512 * 512 + 1023 if form in ("tar", "tar-ustar", "tar-gnu") else len(data) - 1
    for size in {*range(0, last, 211), last}:
        refused(archive, data[:size])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("more", [b"x", b"\0x", pack(FILES), pack(FILES, "zip")])
def test_bytes_behind_the_end_are_refused(archive: Path, form: str, more: bytes) -> None:
    refused(archive, pack(FILES, form) + more)


@pytest.mark.parametrize("form", ["tar.gz", "tar.zst"])
def test_several_frames_are_one_file(archive: Path, form: str) -> None:
    plain = pack(FILES)
    assert read(archive, compress(plain[:700], form) + compress(plain[700:], form)) == FILES


def test_a_gzip_may_be_padded_with_zeros(archive: Path) -> None:
    assert read(archive, pack(FILES, "tar.gz") + bytes(5000)) == FILES


def test_skippable_frames_of_zstd_are_skipped(archive: Path) -> None:
    frame = struct.pack("<LL", 0x184D2A51, 5) + b"hello"
    assert read(archive, frame + pack(FILES, "tar.zst") + frame) == FILES
    refused(archive, frame + pack(FILES, "tar.zst") + frame[:-1])


@pytest.mark.parametrize("form", ["tar.gz", "tar.zst"])
def test_a_compressed_file_that_is_no_tar_is_refused(archive: Path, form: str) -> None:
    assert "something else than a tar" in refused(archive, compress(FILES["adapter_model.safetensors"], form))


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 10240, b"<html>", FILES["adapter_model.safetensors"]])
def test_what_is_no_archive_is_refused(archive: Path, data: bytes) -> None:
    assert "expected a tar, tar.gz, tar.zst or zip" in refused(archive, data)


@pytest.mark.parametrize("form", ["tar.gz", "tar.zst"])
def test_a_wrong_checksum_is_refused(archive: Path, form: str) -> None:
    data = bytearray(pack(FILES, form))
    data[-6 if form == "tar.gz" else -1] ^= 1
    refused(archive, bytes(data))


def test_a_sparse_file_is_refused(archive: Path) -> None:
    info = tarfile.TarInfo("other")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"}
    assert "sparse" in refused(archive, info.tobuf(tarfile.PAX_FORMAT) + pack(FILES))
    info = tarfile.TarInfo("other")
    info.type = tarfile.GNUTYPE_SPARSE
    assert "of the kind" in refused(archive, info.tobuf(tarfile.GNU_FORMAT) + pack(FILES))


def test_a_file_with_the_name_of_a_folder_is_refused(archive: Path) -> None:
    info = tarfile.TarInfo("other/")
    assert "name of a folder" in refused(archive, info.tobuf() + pack(FILES))


def test_a_global_name_is_refused_and_a_global_comment_is_not(archive: Path) -> None:
    comment = tarfile.TarInfo.create_pax_global_header({"comment": "0" * 40})
    assert read(archive, comment + pack(FILES)) == FILES
    refused(archive, tarfile.TarInfo.create_pax_global_header({"path": "README.md"}) + pack(FILES))


def test_a_link_with_content_is_refused(archive: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.LNKTYPE, 512
    assert "content of its own" in refused(archive, info.tobuf() + bytes(512) + pack(FILES))


@pytest.mark.parametrize("size", ["-1", "x", "9" * 30])
def test_a_size_that_is_none_is_refused(archive: Path, size: str) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {"size": size}
    refused(archive, info.tobuf(tarfile.PAX_FORMAT) + pack(FILES))


def test_a_zip_behind_other_bytes_is_refused(archive: Path) -> None:
    refused(archive, b"PK\3\4" + bytes(96) + pack(FILES, "zip"))


def test_an_encrypted_zip_is_refused(archive: Path) -> None:
    data = bytearray(pack(FILES, "zip"))
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    assert "encrypted" in refused(archive, bytes(data))


@pytest.mark.parametrize("at", [8, 14, 18, 22, 30])
def test_a_zip_whose_headers_disagree_is_refused(archive: Path, at: int) -> None:
    data = bytearray(pack(FILES, "zip"))
    data[at] ^= 1
    assert "in its directory than in its header" in refused(archive, bytes(data))


def test_another_compression_of_a_zip_is_refused(archive: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_BZIP2) as file:
        for name, content in FILES.items():
            file.writestr(name, content)
    assert "method 12" in refused(archive, out.getvalue())


def _parts(data: bytes) -> tuple[bytes, list[bytes], int]:
    """A zip's members, the entries of its directory, and where the directory begins."""
    count, size, start = struct.unpack("<10xH2L2x", data[-22:])
    entries, at = [], start
    for _ in range(count):
        end = at + 46 + sum(struct.unpack("<3H", data[at + 28 : at + 34]))
        entries.append(data[at:end])
        at = end
    assert at == start + size
    return data[:start], entries, start


def _joined(members: bytes, entries: list[bytes], count: int | None = None, disk: int = 0) -> bytes:
    directory = b"".join(entries)
    count = len(entries) if count is None else count
    return (
        members
        + directory
        + struct.pack("<4s4H2LH", b"PK\5\6", disk, disk, count, count, len(directory), len(members), 0)
    )


def test_the_frame_of_the_zips_below_is_valid(archive: Path) -> None:
    data = pack(FILES, "zip")
    members, entries, _ = _parts(data)
    assert _joined(members, entries) == data


def test_a_member_inside_of_another_is_refused(archive: Path) -> None:
    """The quoted bomb: a stored member that has the local header of another one in it."""
    inner, (entry,), _ = _parts(pack({"inner": b"x" * 50}, "zip"))
    out = io.BytesIO(pack(FILES, "zip"))
    with zipfile.ZipFile(out, "a") as file:
        file.writestr(zipfile.ZipInfo("outer"), inner, zipfile.ZIP_STORED)
    members, entries, _ = _parts(out.getvalue())
    inside = entry[:42] + struct.pack("<L", members.index(inner)) + entry[46:]
    assert "'inner' not right behind" in refused(archive, _joined(members, [*entries, inside]))


@pytest.mark.parametrize("number", range(len(FILES)))
def test_a_member_that_the_directory_does_not_have_is_refused(archive: Path, number: int) -> None:
    """Tools that read a zip as a stream would unpack it."""
    members, entries, _ = _parts(pack(FILES, "zip"))
    del entries[number]
    assert "not right behind" in refused(archive, _joined(members, entries))


def test_a_directory_of_other_entries_than_it_counts_is_refused(archive: Path) -> None:
    members, entries, _ = _parts(pack(FILES, "zip"))
    assert "more entries than it says" in refused(archive, _joined(members, entries, len(entries) - 1))
    refused(archive, _joined(members, entries, len(entries) + 1))
    assert "one part of several" in refused(archive, _joined(members, entries, disk=1))


def test_a_directory_that_is_mostly_comments_is_refused(archive: Path) -> None:
    out = io.BytesIO(pack(FILES, "zip"))
    with zipfile.ZipFile(out, "a") as file:
        for number in range(2):
            info = zipfile.ZipInfo(f"x/{number}")
            info.comment = b"c" * 60_000
            file.writestr(info, b"")
    assert "directory of" in refused(archive, out.getvalue(), Reason.SIZE_LIMIT_EXCEEDED)


def test_a_folder_with_content_is_refused(archive: Path) -> None:
    data = pack(FILES | {"x_": b"content"}, "zip").replace(b"x_", b"x/")
    assert "content of its own" in refused(archive, data)


def test_a_zip64_is_read(archive: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in FILES.items():
            with file.open(name, "w", force_zip64=True) as member:
                member.write(content)
    assert read(archive, out.getvalue()) == FILES


def test_a_zip64_directory_is_read_and_checked(archive: Path) -> None:
    data = pack(FILES, "zip")
    _, _, _, _, count, size, start, _ = struct.unpack("<4s4H2LH", data[-22:])
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(data) - 22, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert read(archive, data[:-22] + end64 + locator + end) == FILES
    far = struct.pack("<4sLQL", b"PK\6\7", 0, 2**63, 1)
    refused(archive, data[:-22] + end64 + far + end)
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2**40, 2**40, 2**62, start)
    refused(archive, data[:-22] + large + locator + end)


# Anything else.


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_no_damage_ends_in_another_error_or_in_other_bytes_than_another_tool_sees(
    archive: Path, form: str, seed: int
) -> None:
    source = random.Random(f"{form} {seed}")
    data = pack(FILES, form)
    for _ in range(400):
        damaged = _mutate(data, source)
        try:
            found = read(archive, damaged)
        except ArtifactError:
            continue
        if form.startswith("zip"):
            # It minds the version of the tool that is said to be needed.
            with suppress(NotImplementedError), zipfile.ZipFile(archive) as other:
                assert {name: other.read(name) for name in found} == found
        else:
            with tarfile.open(archive) if form != "tar.zst" else _unzstd(damaged) as plain:
                assert {name: _extract(plain, name) for name in found} == found


def _mutate(data: bytes, source: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 8])):
        at = source.randrange(len(out))
        match source.randrange(5):
            case 0:
                out[at] = source.randrange(256)
            case 1:
                out[at] ^= 1 << source.randrange(8)
            case 2:
                del out[at : at + source.choice([1, 4, 512])]
            case 3:
                out[at:at] = source.choice([b"\0", b"\xff" * 4, bytes(512), data[at // 2 : at // 2 + 30]])
            case _:
                out[at : at + 4] = source.choice([b"\xff" * 4, bytes(4), b"\x80\0\0\0", b"7777"])
    if out[:262].find(b"ustar") == 257 and source.random() < 0.7:
        _mend(out)
    return bytes(out)


def _mend(out: bytearray) -> None:
    """Make the checksums of a tar right again, so that damage gets behind them."""
    for at in range(0, len(out) - 511, 512):
        block = out[at : at + 512]
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + sum(block[156:]) + 8 * 32
            out[at + 148 : at + 156] = b"%06o\0 " % total


def _unzstd(data: bytes) -> tarfile.TarFile:
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as stream:
        return tarfile.open(fileobj=io.BytesIO(stream.read()))


def _extract(plain: tarfile.TarFile, name: str) -> bytes:
    (member,) = [member for member in plain.getmembers() if Path(member.name) == Path(name)]
    content = plain.extractfile(member)
    assert content is not None
    return content.read()
