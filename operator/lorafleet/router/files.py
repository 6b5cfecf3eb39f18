"""Putting configuration where Envoy reads it: a file changes by a rename, so that nobody ever sees half of one."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path


def write(directory: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Replaces the files that differ; the answer is their names. Only their owner may read them: some hold keys.

    Others in ``directory`` stay. Envoy watches each path for a rename to it (`path_config_source`), so a file that
    did not change is not read again.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    changed = tuple(name for name in files if _differs(directory / name, files[name]))
    for name in changed:
        _replace(directory / name, files[name])
    return changed


def _differs(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size != len(content) or path.read_bytes() != content
    except FileNotFoundError:
        return True


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    part.replace(path)
