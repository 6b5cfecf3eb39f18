"""From a source to the folder of a version as it will be published, in an attempt's ``tree``.

First the source's files, exactly, so that they can be compared with a digest and a signature before anything looks into
them; then what engines get: no pickle, and a configuration with the engines' name of the base model. Nothing here is
visible to an engine, and nothing is decided about what is published.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lorafleet.api.reasons import Reason
from lorafleet.api.verification import VerificationPolicy
from lorafleet.artifacts.check import Expectations
from lorafleet.artifacts.digest import FileDigest, digest
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.artifacts.files import CONFIG_FILE, PICKLE_FILES, SIGNATURE_FILE, WEIGHTS_FILE, Wanted
from lorafleet.artifacts.peft_config import with_base_model
from lorafleet.sources.base import Chunk, Listing, Source, SourceFile
from lorafleet.store.attempts import Attempt
from lorafleet.store.proof import Trust, verify_signature
from lorafleet.store.reading import Pace
from lorafleet.store.transfer import Marks, Meter, Progress, Transfer, no_progress
from lorafleet.store.volume import Volume

LOCAL = "volume"
"""The scheme whose bytes are as near as our own: reading them again costs what keeping them would."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to publish. ``model``: the engines' ``--model`` string. ``min_id``: the lowest id that may be given.

    ``digest``: what the source's files must have, if any. ``pin``: what its moving name stood for. ``entry``: the hash
    of the version's entry. ``subfolder``: the adapter's folder in an archive. ``trust``: the signatures that count, if
    the policy asks for one.
    """

    adapter: str
    version: str
    model: str
    expectations: Expectations
    min_id: int = 1
    digest: str | None = None
    pin: str | None = None
    entry: str = ""
    wanted: Wanted = field(default_factory=Wanted)
    subfolder: str | None = None
    policy: VerificationPolicy = VerificationPolicy.NONE
    trust: Trust | None = None

    @property
    def name(self) -> str:
        """The version for messages."""
        return f"{self.adapter} {self.version}"


@dataclass(frozen=True, slots=True)
class How:
    """How to fetch, and who watches."""

    progress: Progress = no_progress
    pace: Pace = field(default_factory=Pace)
    marks: Marks = field(default_factory=Marks)


@dataclass(frozen=True, slots=True)
class Fetched:
    """The source's files in ``tree``. ``verified_by``: who signed them, when the fleet asks for it."""

    pin: str
    files: tuple[FileDigest, ...]
    digest: str
    verified_by: str | None


def is_local(source: Source) -> bool:
    """Whether a source is on a volume of this Job."""
    return source.describe().get("scheme") == LOCAL


def fetch(volume: Volume, request: Request, source: Source, listing: Listing, into: Attempt, how: How) -> Fetched:
    """Fetch a listing into ``tree`` and prove it. Raises ArtifactError, OSError, and what the progress raises."""
    files = receive(volume, request, source, listing, into, how)
    adapter = tuple(file for file in files if file.path != SIGNATURE_FILE)
    found = digest(adapter)
    require_pinned(request, found)
    verified_by = None if request.trust is None else verify_signature(into.tree, adapter, request.trust)
    if len(adapter) < len(files):
        volume.fs.remove_file(into.tree / SIGNATURE_FILE)
    return Fetched(listing.pin, adapter, found, verified_by)


def receive(
    volume: Volume, request: Request, source: Source, listing: Listing, into: Attempt, how: How
) -> tuple[FileDigest, ...]:
    """Fetch a listing into ``tree``, unpacked; a signature is among the files. Raises as ``fetch`` does."""
    known = {file.path for file in listing.files if _known(volume, file)}
    needed = sum(file.size or 0 for file in listing.files if file.path not in known)
    sizes = [file.size for file in listing.files]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    with volume.room.reserve(needed, request.name) as room:
        meter = Meter(
            total, how.progress, lambda count: volume.room.write(room, count, request.name), request.wanted.limits
        )
        return _files(volume, request, source, listing, into, how, meter)


def require_pinned(request: Request, found: str) -> None:
    """Refuse files that have another digest than is asked for. Raises ArtifactError (DigestMismatch)."""
    if request.digest is not None and request.digest != found:
        raise ArtifactError(
            Reason.DIGEST_MISMATCH,
            f"the source has digest {found}; the version is pinned to {request.digest}: restore the files, or append a"
            " new version with the digest of these",
        )


def convert(request: Request, fetched: Fetched, into: Attempt) -> tuple[tuple[FileDigest, ...], str | None]:
    """Replace weights that are only a pickle by a safetensors file: the files then, and the pickle's name, if any.

    Raises ArtifactError, OSError.
    """
    names = {file.path for file in fetched.files}
    pickle = next((name for name in PICKLE_FILES if name in names), None)
    if pickle is None or WEIGHTS_FILE in names or not request.wanted.pickle:
        return fetched.files, None
    from lorafleet.artifacts import pickles

    written = _Hashed(WEIGHTS_FILE)
    chunks = pickles.convert(into.tree / pickle, request.wanted.limits)
    into.fs.write_file(into.tree / WEIGHTS_FILE, written.through(chunks), sync=False)
    into.fs.remove_file(into.tree / pickle)
    kept = [file for file in fetched.files if file.path != pickle]
    return tuple(sorted([*kept, written.digest()], key=lambda file: file.path)), pickle


def rewrite_config(into: Attempt, model: str, files: tuple[FileDigest, ...]) -> tuple[FileDigest, ...]:
    """Give the configuration the engines' name of the base model; the answer is the files then. Raises OSError."""
    config, new = into.tree / CONFIG_FILE, into.tree / f"{CONFIG_FILE}.new"
    data = with_base_model(config.read_bytes(), model)
    into.fs.write_file(new, (data,), sync=False)
    into.fs.rename(new, config)
    rewritten = FileDigest(CONFIG_FILE, len(data), hashlib.sha256(data).hexdigest())
    return tuple(rewritten if file.path == CONFIG_FILE else file for file in files)


def _files(
    volume: Volume, request: Request, source: Source, listing: Listing, into: Attempt, how: How, meter: Meter
) -> tuple[FileDigest, ...]:
    taken = [one for one in (_take(volume, file, into, meter) for file in listing.files) if one is not None]
    paths = {file.path for file in taken}
    left = tuple(file for file in listing.files if file.path not in paths)
    transfer = Transfer(
        source,
        listing,
        into,
        request.wanted.limits,
        meter,
        resume=not is_local(source),
        pace=how.pace,
        marks=how.marks,
    )
    received = transfer.run(left)
    source.confirm(listing)
    archives = [one for one in received if one.file.archive]
    if archives:
        return _unpack([(one.file, one.part) for one in archives if one.part], request, into, meter)
    for one in received:
        if one.part is not None:
            volume.fs.rename(one.part, into.tree / one.file.path)
        into.numbers = one.numbers or into.numbers
    return tuple(sorted([*taken, *(one.digest for one in received)], key=lambda file: file.path))


def _known(volume: Volume, file: SourceFile) -> bool:
    said = file.checksum
    plain = said is not None and said.algorithm == "sha256" and file.size is not None and not file.archive
    return plain and said is not None and volume.blobs.has(said.value)


def _take(volume: Volume, file: SourceFile, into: Attempt, meter: Meter) -> FileDigest | None:
    """A file that the volume has already under the sha256 that its source announces; None when it has not."""
    if not _known(volume, file) or file.checksum is None or file.size is None:
        return None
    wanted = FileDigest(file.path, file.size, file.checksum.value)
    if not volume.blobs.take(wanted, into.tree / file.path):
        return None
    meter.pass_over(file.size)
    return wanted


def _unpack(
    archives: list[tuple[SourceFile, Path]], request: Request, into: Attempt, meter: Meter
) -> tuple[FileDigest, ...]:
    from lorafleet.artifacts import archive

    where = f"archive {archives[0][0].path}" if len(archives) == 1 else f"the {len(archives)} layers of the source"
    files = []
    for name, _, chunks in archive.unpack([part for _, part in archives], request.wanted, request.subfolder, where):
        written = _Hashed(name, meter)
        into.fs.write_file(into.tree / name, written.through(chunks), sync=False)
        files.append(written.digest())
    for _, part in archives:
        into.fs.remove_file(part)
    return tuple(sorted(files, key=lambda file: file.path))


class _Hashed:
    def __init__(self, path: str, meter: Meter | None = None) -> None:
        self._path = path
        self._meter = meter
        self._hash = hashlib.sha256()
        self._size = 0

    def through(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self._hash.update(chunk)
            self._size += len(chunk)
            yield chunk
            if self._meter is not None:
                self._meter.write(len(chunk))

    def digest(self) -> FileDigest:
        return FileDigest(self._path, self._size, self._hash.hexdigest())
