"""``lorafleet store``: what is on a fleet's volume, where it is mounted. Reads, and removes only what every Job would.

It knows the volume and not the cluster: nothing in ``serving/`` is ever touched here.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.text import Text

from lorafleet.api.model import ApiModel
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.cli.address import Unusable
from lorafleet.cli.terminal import bar, console, document, printable, put, size, table
from lorafleet.store import garbage
from lorafleet.store.blobs import Blobs, Sharing, probe
from lorafleet.store.collect import STAGING_SECONDS
from lorafleet.store.fs import POSIX
from lorafleet.store.layout import Layout
from lorafleet.store.manifest import Manifest
from lorafleet.store.published import Hashes, Listed, list_published, verify
from lorafleet.store.room import used_below
from lorafleet.store.scrub import forget_pages
from lorafleet.store.staging import volume_time


class Version(ApiModel):
    """A folder of ``serving/``. ``shared_bytes``: of files that another version has, too, under the same inode."""

    served_name: str
    id: int | None = None
    digest: str | None = None
    size_bytes: int | None = None
    unique_bytes: int | None = None
    shared_bytes: int | None = None
    published_at: str | None = None
    source: dict[str, str] | None = None
    problem: str | None = None


class Area(ApiModel):
    """A folder of the volume: how many things are in it, and the bytes that no area before it has."""

    name: str
    entries: int
    size_bytes: int


class Contents(ApiModel):
    """What is on a volume. ``used_bytes``: of all areas, each file counted once."""

    schema_version: int = 1
    versions: tuple[Version, ...]
    areas: tuple[Area, ...]
    used_bytes: int


class Verified(ApiModel):
    """A published version that was read again; ``problem``: why it is damaged."""

    served_name: str
    problem: str | None = None


class Verification(ApiModel):
    """What came of reading published versions again."""

    schema_version: int = 1
    deep: bool
    damaged: int
    versions: tuple[Verified, ...]


class Collected(ApiModel):
    """What was removed from a volume, or would be."""

    schema_version: int = 1
    dry_run: bool
    staging: tuple[str, ...]
    trash: tuple[str, ...]
    blobs: tuple[str, ...]
    freed_bytes: int


def ls(root: Path, form: str) -> int:
    """Print what is on the volume."""
    with _reading(root) as layout:
        contents = _contents(layout)
    if form != "text":
        sys.stdout.write(document(contents.to_json(), form))
        return 0
    page = console(sys.stdout)
    made = table(
        "SERVED NAME",
        "ID",
        "SIZE",
        "UNIQUE",
        "SHARED",
        "PUBLISHED",
        "SOURCE",
        right=_NUMBERS,
        fold=("PUBLISHED", "SOURCE"),
    )
    for version in contents.versions:
        if version.problem is not None:
            continue
        made.add_row(
            version.served_name,
            str(version.id),
            *(size(count or 0) for count in (version.size_bytes, version.unique_bytes, version.shared_bytes)),
            (version.published_at or "")[:19].replace("T", " "),
            Text(printable(_place(version.source or {}))),
        )
    put(page, made)
    for version in contents.versions:
        if version.problem is not None:
            page.print(Text(f"{printable(version.served_name)} is no version: {printable(version.problem)}", "red"))
    page.print()
    areas = table("FOLDER", "ENTRIES", "SIZE", right=_NUMBERS)
    for area in contents.areas:
        areas.add_row(f"{area.name}/", str(area.entries), size(area.size_bytes))
    areas.add_row("all", "", size(contents.used_bytes))
    put(page, areas)
    return 0


def check(root: Path, served_names: Sequence[str], deep: bool, form: str) -> int:
    """Read published versions again, all or those that are named; 1 when one is damaged."""
    found: list[Verified] = []
    with _reading(root) as layout, bar("verifying") as progress:
        wanted = _wanted(layout, served_names)
        total = sum(map(_size, wanted))
        done = 0
        hashes: Hashes = {}
        for listed in wanted:
            progress(done, total)
            found += _verified(layout, listed, deep, hashes)
            done += _size(listed)
    damaged = sum(one.problem is not None for one in found)
    if form != "text":
        answer = Verification(deep=deep, damaged=damaged, versions=tuple(found))
        sys.stdout.write(document(answer.to_json(), form))
        return 1 if damaged else 0
    page = console(sys.stdout)
    made = table("SERVED NAME", "RESULT", "MESSAGE", fold=("MESSAGE",))
    for one in found:
        word = Text("whole", "green") if one.problem is None else Text("damaged", "bold red")
        made.add_row(printable(one.served_name), word, Text(printable(one.problem or "")))
    put(page, made)
    page.print()
    how = "every byte read" if deep else "names, sizes, modes and small files"
    page.print(f"{len(found)} verified ({how}), {damaged} damaged")
    return 1 if damaged else 0


def gc(root: Path, dry_run: bool, form: str) -> int:
    """Remove, or only name, what dead Jobs left and blobs that no version shares."""
    with _reading(root) as layout:
        blobs = Blobs(layout, POSIX, _sharing(layout, dry_run))
        found = garbage.find(layout, blobs, STAGING_SECONDS, _now(layout, dry_run))
        if not dry_run:
            garbage.collect(layout, blobs, STAGING_SECONDS, POSIX)
    answer = Collected(
        dry_run=dry_run,
        staging=tuple(path.name for path in found.staging),
        trash=tuple(path.name for path in found.trash),
        blobs=tuple(path.name for path in found.blobs),
        freed_bytes=found.size,
    )
    if form != "text":
        sys.stdout.write(document(answer.to_json(), form))
        return 0
    page = console(sys.stdout)
    made = table("FOLDER", "ENTRY", fold=("ENTRY",))
    whys = {
        "staging": f"nothing was written there for {STAGING_SECONDS / 3600:.0f} h: its Job is gone",
        "trash": "its version was removed",
        "blobs": "no published version shares it",
    }
    for area in whys:
        for name in getattr(answer, area):
            made.add_row(f"{area}/", printable(name))
    if made.row_count:
        put(page, made)
        page.print()
        for area, why in whys.items():
            if getattr(answer, area):
                page.print(f"{area}/: {why}")
    verb = "would be removed" if dry_run else "removed"
    page.print(f"{made.row_count} {verb}, {size(answer.freed_bytes)} freed")
    page.print("serving/ is left alone: which versions engines list, only the operator knows")
    return 0


_NUMBERS = ("ID", "SIZE", "UNIQUE", "SHARED", "ENTRIES")


@contextmanager
def _reading(root: Path) -> Iterator[Layout]:
    """The volume below ``root``. Raises Unusable for a folder that is none, and for what cannot be read."""
    layout = Layout(root)
    try:
        if not layout.serving.is_dir():
            found = "has no serving/" if root.is_dir() else "is no folder"
            raise Unusable(
                f"{root} {found}; expected the root of a fleet's volume: name the place where the claim is mounted"
            )
        yield layout
    except OSError as error:
        raise Unusable(
            f"{error.filename or root} cannot be used: {error.strerror}; expected a volume that user {os.getuid()} may"
            " read, and write for gc: run the command as the user of the sync Jobs (65532) or as root"
        ) from None


def _contents(layout: Layout) -> Contents:
    listed = list_published(layout)
    inodes = {one.served_name: _inodes(layout, one.manifest) for one in listed if one.manifest}
    names = Counter(inode for found in inodes.values() for inode in found)
    versions = tuple(_version(one, inodes.get(one.served_name, {}), names) for one in listed)
    seen: set[tuple[int, int]] = set()
    areas = tuple(
        Area(name=folder.name, entries=_entries(layout, folder), size_bytes=used_below(folder, seen))
        for folder in (layout.serving, layout.blobs, layout.staging, layout.trash)
    )
    return Contents(versions=versions, areas=areas, used_bytes=sum(area.size_bytes for area in areas))


def _entries(layout: Layout, folder: Path) -> int:
    pattern = "*/*" if folder == layout.serving else "*"
    return sum(1 for _ in folder.glob(pattern))


def _inodes(layout: Layout, manifest: Manifest) -> dict[tuple[int, int], int]:
    """The adapter's files in a published folder, with their bytes; those that are gone are for ``verify`` to tell."""
    found = {}
    for file in manifest.files:
        with suppress(FileNotFoundError):
            one = (layout.serving / manifest.served_name / file.path).lstat()
            found[one.st_dev, one.st_ino] = one.st_size
    return found


def _version(listed: Listed, inodes: dict[tuple[int, int], int], names: Counter[tuple[int, int]]) -> Version:
    manifest = listed.manifest
    if manifest is None:
        return Version(served_name=listed.served_name, problem=listed.problem)
    shared = sum(count for inode, count in inodes.items() if names[inode] > 1)
    return Version(
        served_name=manifest.served_name,
        id=manifest.id,
        digest=manifest.digest,
        size_bytes=manifest.size_bytes,
        unique_bytes=sum(inodes.values()) - shared,
        shared_bytes=shared,
        published_at=manifest.published_at,
        source=manifest.source,
    )


def _size(listed: Listed) -> int:
    return listed.manifest.size_bytes if listed.manifest else 0


def _place(source: dict[str, str]) -> str:
    return " ".join([source.get("scheme", ""), *(value for key, value in source.items() if key != "scheme")])


def _wanted(layout: Layout, served_names: Sequence[str]) -> tuple[Listed, ...]:
    listed = {one.served_name: one for one in list_published(layout)}
    missing = [name for name in served_names if name not in listed]
    if missing:
        known = ", ".join(sorted(listed)[:10]) or "no version"
        raise Unusable(
            f"{printable(missing[0])} is not published on this volume; expected a served name of it, which has"
            f" {printable(known)}: `lorafleet store ls` lists all"
        )
    return tuple(listed[name] for name in dict.fromkeys(served_names)) if served_names else tuple(listed.values())


def _verified(layout: Layout, listed: Listed, deep: bool, hashes: Hashes) -> tuple[Verified, ...]:
    """What became of a version; nothing when it was removed meanwhile."""
    name = listed.served_name
    if listed.manifest is None:
        return (Verified(served_name=name, problem=listed.problem),)
    if deep:
        forget_pages(layout, name)
    try:
        verify(layout, name, deep=deep, hashes=hashes)
    except ArtifactError as error:
        gone = not (layout.serving / name).is_dir()
        return () if gone else (Verified(served_name=name, problem=error.message),)
    return (Verified(served_name=name),)


def _sharing(layout: Layout, dry_run: bool) -> Sharing:
    """How the volume shares files; on one that cannot be written, where nothing can go, the careful answer."""
    try:
        return probe(layout, POSIX)
    except OSError:
        if not dry_run:
            raise
        return Sharing.REFLINK


def _now(layout: Layout, dry_run: bool) -> float:
    try:
        return volume_time(layout, POSIX)
    except OSError:
        if not dry_run:
            raise
        return time.time()
