"""The adapter in an archive: tar, tar.gz, tar.zst or zip, told apart by their first bytes.

Written for archives that want to do harm. Nothing is unpacked to the file system: the archive is read once to see all
that it holds and that it is whole, then again for the files that ``artifacts.files.select`` chose, which are handed
out chunk by chunk. Memory is a chunk, and for tar.zst the window that the archive asks for, at most 128 MiB.
"""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lorafleet.api.reasons import Reason
from lorafleet.artifacts import inflate
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import CONFIG_FILE, Limits, Wanted, check_entries, select
from lorafleet.artifacts.members import Chunk, Kind, Member, Members, invalid, unsafe
from lorafleet.artifacts.tar_archive import TarMembers, is_tar
from lorafleet.artifacts.zip_archive import ZipMembers

_HEAD_BYTES = 512
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class _At:
    """A member, and the number of the layer that has it."""

    member: Member
    layer: int


def unpack(
    archives: Path | Sequence[Path], wanted: Wanted, subfolder: str | None, where: str
) -> Iterator[tuple[str, int, Iterator[Chunk]]]:
    """The adapter's files in an archive as (name, bytes, chunks); the chunks of one are read before the next.

    Several archives are the layers of one tree, lowest first, as in an OCI image. ``subfolder`` is the folder of the
    tree that holds the adapter; when None, the uppermost folder that holds an ``adapter_config.json``. ``where`` names
    the archive in messages. A file's bytes are known to be right (its size, and the checksums that the format has)
    when the next file, or the end, was reached. Raises ArtifactError (ArchiveInvalid, UnsafePath, SizeLimitExceeded,
    SourceInvalid, and those of ``select``), and OSError of the file itself.
    """
    paths = [archives] if isinstance(archives, Path) else archives
    layers = [_open(path, wanted.limits, where) for path in paths]
    found = _tree(layers, wanted.limits, where)
    folder = _uppermost(found, where) if subfolder is None else _inside(subfolder, where)
    _require_folder(folder, found, where)
    prefix = f"{folder}/" if folder else ""
    here = {path.removeprefix(prefix): at for path, at in found.items() if path and _parent(path) == folder}
    place = f"folder {folder!r} of {where}" if folder else where
    chosen = select(((name, at.member.size) for name, at in here.items()), wanted, place)
    for name in chosen:
        member = here[name].member
        if member.kind is not Kind.FILE:
            raise unsafe(where, member.path, f"is a {member.kind.name.lower()}")
    for number, layer in enumerate(layers):
        left = {here[name].member.path for name in chosen if here[name].layer == number}
        for member, chunks in layer.contents(frozenset(left)):
            if member.path not in left or found[member.path].member != member:
                raise invalid(where, f"changed while {member.path!r} was read")
            left.remove(member.path)
            yield member.path.removeprefix(prefix), member.size, chunks
            for _ in chunks:
                pass
        if left:
            raise invalid(where, f"changed while it was read: {min(left)!r} is gone")


def _open(path: Path, limits: Limits, where: str) -> Members:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ZipMembers(path, limits, where)
    compression = inflate.of(head)
    if compression is None and not is_tar(head):
        raise invalid(where, f"begins with {head[:8]!r}; expected a tar, tar.gz, tar.zst or zip")
    return TarMembers(path, compression, limits, where)


def _tree(layers: Sequence[Members], limits: Limits, where: str) -> dict[str, _At]:
    """All members by path: what later layers replace or mark as deleted is gone (OCI image specification, layer.md)."""
    tree: dict[str, _At] = {}
    seen = 0
    for number, layer in enumerate(layers):
        found: dict[str, Member] = {}
        gone, emptied = set(), set()
        for member in layer.listing():
            seen += 1
            check_entries(seen, limits)
            folder, _, name = member.path.rpartition("/")
            if name == _OPAQUE:
                emptied.add(folder)
            elif name.startswith(_WHITEOUT):
                gone.add("/".join(filter(None, (folder, name.removeprefix(_WHITEOUT)))))
            else:
                _add(found, member, where)
        gone |= {path for path, member in found.items() if member.kind is not Kind.FOLDER}
        tree = {path: at for path, at in tree.items() if path not in gone and not _is_below(path, gone | emptied)}
        tree |= {path: _At(member, number) for path, member in found.items()}
    return tree


def _add(found: dict[str, Member], member: Member, where: str) -> None:
    before = found.get(member.path)
    if before is not None and not (before.kind is member.kind is Kind.FOLDER):
        raise invalid(where, f"holds {member.path[:200]!r} twice")
    if not member.path and member.kind is not Kind.FOLDER:
        raise unsafe(where, "", "is the archive's own folder and no folder")
    found[member.path] = member


def _is_below(path: str, folders: Set[str]) -> bool:
    while path:
        path = _parent(path)
        if path in folders:
            return True
    return False


def _uppermost(found: dict[str, _At], where: str) -> str:
    folders = [
        _parent(path)
        for path, at in found.items()
        if PurePosixPath(path).name == CONFIG_FILE and at.member.kind is not Kind.FOLDER
    ]
    depth = min(map(_depth, folders), default=0)
    uppermost = sorted(folder for folder in folders if _depth(folder) == depth)
    if len(uppermost) > 1:
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"{where} holds several adapters, such as in {uppermost[0][:200]!r} and {uppermost[1][:200]!r}; expected"
            " one: say which by the source's subfolder",
        )
    return uppermost[0] if uppermost else ""


def _require_folder(folder: str, found: dict[str, _At], where: str) -> None:
    """Refuse a folder that is something else in the archive, or is below something else."""
    path = PurePosixPath(folder)
    for above in (path, *path.parents):
        at = found.get("" if above == PurePosixPath() else str(above))
        if at is not None and at.member.kind is not Kind.FOLDER:
            raise unsafe(where, at.member.path, "is no folder, but the adapter's folder by its name")


def _inside(subfolder: str, where: str) -> str:
    parts = [part for part in subfolder.split("/") if part not in ("", ".")]
    if subfolder.startswith("/") or ".." in parts:
        raise unsafe(where, subfolder, "is a subfolder that leaves the archive")
    return "/".join(parts)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _depth(folder: str) -> int:
    return folder.count("/") + 1 if folder else 0
