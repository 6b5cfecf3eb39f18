"""The digest that names an adapter's bytes.

The digest of a version is ``sha256:`` and the sha256, in lower-case hex, of this text in UTF-8: one line per file,
sorted by the bytes of the path, each ``<sha256 of the file> <size in bytes> <path>`` and a newline. The files are
those of ``artifacts.files`` as they are at the source, before ``base_model_name_or_path`` is rewritten. In a shell::

    for f in $(ls | LC_ALL=C sort); do
        echo "$(sha256sum < $f | cut -c1-64) $(stat -c %s $f) $f"
    done | sha256sum

Files are streamed; memory is one chunk.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lorafleet.api.names import DIGEST_PREFIX

CHUNK_BYTES = 4 * 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileDigest:
    """One file: its path relative to the folder, its size in bytes, the sha256 of its content in hex."""

    path: str
    size: int
    sha256: str


def digest(files: Iterable[FileDigest]) -> str:
    """The digest of a set of files as ``sha256:<64 hex>``; the order of ``files`` does not matter.

    Raises ValueError on no files, two with one path, or a line that would be ambiguous.
    """
    ordered = sorted(files, key=lambda file: file.path.encode())
    paths = [file.path for file in ordered]
    if not paths or len(set(paths)) != len(paths):
        raise ValueError(f"a digest is over one or more files with different paths, not over {paths}")
    total = hashlib.sha256()
    for file in ordered:
        if "\n" in file.path or not _SHA256.fullmatch(file.sha256) or file.size < 0:
            raise ValueError(f"{file} cannot be part of a digest")
        total.update(f"{file.sha256} {file.size} {file.path}\n".encode())
    return DIGEST_PREFIX + total.hexdigest()


def hash_file(folder: Path, path: str) -> FileDigest:
    """Read one file below ``folder`` once and hash it. Raises OSError."""
    with (folder / path).open("rb", buffering=0) as file:
        content = hashlib.file_digest(file, "sha256")
        return FileDigest(path, file.tell(), content.hexdigest())
