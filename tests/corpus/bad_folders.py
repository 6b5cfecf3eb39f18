"""What is wrong with a folder as such: files that are missing, too many, too large, or no files."""

import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.files import Limits
from tests.corpus.base import CONFIG, WEIGHTS, Base, Case, Make, plain

LIMITS = Limits()
_NO_FILE = "engines never see anything but regular files"
_LARGE = "a size that is too large to offer"


def _folder(edit: Callable[[Path], Any]) -> Make:
    """``edit`` changes the folder of a good adapter."""

    def make(folder: Path, base: Base) -> None:
        plain(base).write(folder)
        edit(folder)

    return make


class _RunsCode:
    """What unpickling runs."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this ran",))


def _only_pickle(name: str) -> Make:
    def edit(folder: Path) -> None:
        (folder / WEIGHTS).unlink()
        (folder / name).write_bytes(pickle.dumps({"a": _RunsCode()}))

    return _folder(edit)


def _replaced(name: str, by: Callable[[Path, Path], Any]) -> Make:
    """``by`` gets the path of a file, and where the file went, which is outside of the folder."""

    def edit(folder: Path) -> None:
        path = folder / name
        moved = path.rename(folder.with_name(f"{folder.name}-moved-{name}"))
        by(path, moved)

    return _folder(edit)


def _socket(path: Path, moved: Path) -> None:
    # A path of a socket is short, whatever the folder's is.
    here = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def _sparse(name: str, size: int) -> Make:
    def edit(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.truncate(size)

    return _folder(edit)


def _crowded(folder: Path) -> None:
    for number in range(LIMITS.max_entries):
        (folder / f"checkpoint-{number}").touch()


BAD_FOLDERS = (
    Case("no adapter_config.json", _folder(lambda folder: (folder / CONFIG).unlink()), Reason.CONFIG_MISSING),
    Case("no weights", _folder(lambda folder: (folder / WEIGHTS).unlink()), Reason.WEIGHTS_MISSING),
    Case(
        "weights under another name",
        _replaced(WEIGHTS, lambda path, moved: moved.rename(path.with_name("model.safetensors"))),
        Reason.WEIGHTS_MISSING,
    ),
    Case("empty folder", lambda folder, base: None, Reason.CONFIG_MISSING),
    Case("weights only as adapter_model.bin", _only_pickle("adapter_model.bin"), Reason.PICKLE_REFUSED),
    Case("weights only as adapter_model.pt", _only_pickle("adapter_model.pt"), Reason.PICKLE_REFUSED),
    Case(
        "weights behind a link out of the claim",
        _replaced(WEIGHTS, lambda path, moved: path.symlink_to("/dev/zero")),
        Reason.UNSAFE_PATH,
        not_offered=_NO_FILE,
    ),
    Case(
        "configuration behind a link out of the claim",
        _replaced(CONFIG, lambda path, moved: path.symlink_to("/etc/hostname")),
        Reason.UNSAFE_PATH,
    ),
    # These may be put right at the source, so they are tried again.
    Case(
        "a link to nothing",
        _replaced(WEIGHTS, lambda path, moved: path.symlink_to("nowhere")),
        Reason.SOURCE_NOT_FOUND,
    ),
    Case(
        "a link to itself",
        _replaced(CONFIG, lambda path, moved: path.symlink_to(path.name)),
        Reason.VOLUME_ERROR,
    ),
    Case("weights that are a folder", _replaced(WEIGHTS, lambda path, moved: path.mkdir()), Reason.UNSAFE_PATH),
    Case(
        "weights that are a pipe",
        _replaced(WEIGHTS, lambda path, moved: os.mkfifo(path)),
        Reason.UNSAFE_PATH,
        not_offered=_NO_FILE,
    ),
    Case(
        "configuration that is a pipe",
        _replaced(CONFIG, lambda path, moved: os.mkfifo(path)),
        Reason.UNSAFE_PATH,
        not_offered=_NO_FILE,
    ),
    Case("weights that are a socket", _replaced(WEIGHTS, _socket), Reason.UNSAFE_PATH, not_offered=_NO_FILE),
    Case(
        "weights of 65 GiB", _sparse(WEIGHTS, LIMITS.max_bytes + 2**30), Reason.SIZE_LIMIT_EXCEEDED, not_offered=_LARGE
    ),
    Case(
        "a tokenizer of 300 MiB",
        _sparse("tokenizer.json", LIMITS.max_side_file_bytes + 2**25),
        Reason.SIZE_LIMIT_EXCEEDED,
        not_offered=_LARGE,
    ),
    Case("10,002 files", _folder(_crowded), Reason.SIZE_LIMIT_EXCEEDED, not_offered=_LARGE),
)
