"""Read every published file again and compare it with what was published. Changes nothing."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from lorafleet.artifacts.errors import ArtifactError
from lorafleet.store.layout import Layout, parse_served_name
from lorafleet.store.published import Hashes, list_published, verify


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """How many versions were read, and those that are not as they were published, with what is wrong."""

    count: int
    damaged: tuple[tuple[str, str], ...]


def scrub(layout: Layout, check: Callable[[], None] = lambda: None) -> Scrubbed:
    """Verify all versions deeply; files that versions share are read once.

    ``check`` is called before each version and may raise to end it. Raises OSError.
    """
    hashes: Hashes = {}
    count, damaged = 0, []
    for listed in list_published(layout):
        try:
            parse_served_name(listed.served_name)
        except ArtifactError:
            continue
        check()
        folder = layout.serving / listed.served_name
        forget_pages(layout, listed.served_name)
        try:
            verify(layout, listed.served_name, deep=True, hashes=hashes)
        except ArtifactError as error:
            if not folder.is_dir():
                # It was removed meanwhile.
                continue
            damaged.append((listed.served_name, error.message))
        count += 1
    return Scrubbed(count, tuple(damaged))


def forget_pages(layout: Layout, served_name: str) -> None:
    """Let the files be read from the volume, not from this node's memory; what engines have mapped stays."""
    try:
        for path in (layout.serving / served_name).iterdir():
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)
    except OSError:
        # Whatever it is, the comparison finds it.
        return
