"""What ``lorafleet inspect`` found, as a document and as a page for a terminal.

The document is for programs: fields are added, never renamed or removed within a ``schemaVersion``. The page is for
people and may change. Nothing is decided here.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorafleet.api.model import ApiModel
from lorafleet.cli.local import LOCAL
from lorafleet.cli.terminal import listed, printable, put, size, table


class Result(StrEnum):
    """What became of a check."""

    PASSED = "passed"
    REFUSED = "refused"
    NOT_CHECKED = "notChecked"


class Check(ApiModel):
    """One check. ``reason`` and ``message``: why it was refused; a message alone: why it was not made."""

    name: str
    result: Result
    reason: str | None = None
    message: str | None = None


class Notice(ApiModel):
    """What was found and does not keep the adapter from being served."""

    reason: str
    message: str


class File(ApiModel):
    """A file of the adapter as it is at its source: bytes, and sha256 in hex."""

    path: str
    size: int
    sha256: str


class Memory(ApiModel):
    """Memory of one GPU, in bytes, estimated.

    ``slot_bytes``: what this adapter's matrices take; ``fleet_slot_bytes``: what an engine sets aside for a slot at its
    ``max_lora_rank``, and ``preallocated_bytes`` for all ``max_loras`` of them.
    """

    slot_bytes: int | None = None
    fleet_slot_bytes: int | None = None
    preallocated_bytes: int | None = None
    max_loras: int | None = None
    max_lora_rank: int | None = None
    tensor_parallel_size: int = 1


class Inspection(ApiModel):
    """All that is known of an adapter. ``accepted``: no check refused it. ``entry``: an entry of ``spec.versions``."""

    schema_version: Literal[1] = 1
    accepted: bool
    source: dict[str, str]
    pin: str | None = None
    checks: tuple[Check, ...]
    notices: tuple[Notice, ...] = ()
    digest: str | None = None
    size_bytes: int | None = None
    files: tuple[File, ...] = ()
    base_model: str | None = None
    rank: int | None = None
    target_modules: tuple[str, ...] = ()
    dtype: str | None = None
    min_engine: str | None = None
    signed_by: str | None = None
    memory: Memory | None = None
    entry: dict[str, Any] | None = None


_MARKS = {
    Result.PASSED: ("passed", "green"),
    Result.REFUSED: ("refused", "bold red"),
    Result.NOT_CHECKED: ("not checked", "dim"),
}


def show(found: Inspection, console: Console) -> None:
    """Print the page."""
    put(console, _checks(found.checks))
    for notice in found.notices:
        console.print(Text.assemble(("notice ", "yellow"), (notice.reason, "bold"), f" {printable(notice.message)}"))
    if found.digest is not None:
        console.print()
        put(console, _facts(found))
        console.print()
        put(console, _files(found.files))
    if found.entry is not None:
        console.print()
        console.print(f"An entry for spec.versions of a LoRAAdapter{_once(found)}:", soft_wrap=True)
        console.print(Text(listed([found.entry])), soft_wrap=True)
    console.print()
    refused = sum(check.result is Result.REFUSED for check in found.checks)
    open_ = sum(check.result is Result.NOT_CHECKED for check in found.checks)
    left = f"; not checked: {open_}" if open_ else ""
    if found.accepted:
        console.print(Text.assemble(("accepted", "bold green"), left))
    else:
        console.print(Text.assemble(("refused", "bold red"), f" by {_count(refused, 'check')}{left}"))


def _once(found: Inspection) -> str:
    """What has to be done first for bytes that are on this machine alone."""
    if found.source.get("scheme") != LOCAL or found.entry is None:
        return ""
    archive = "http" in found.entry["source"]
    return ", once the archive is at an address of yours" if archive else ", once the folder is on the fleet's claim"


def _checks(checks: Sequence[Check]) -> Table:
    made = table("CHECK", "RESULT", "REASON", "MESSAGE", fold=("MESSAGE",))
    for check in checks:
        word, style = _MARKS[check.result]
        made.add_row(check.name, Text(word, style), check.reason or "", Text(printable(check.message or "")))
    return made


def _facts(found: Inspection) -> Table:
    made = Table(box=None, pad_edge=False, show_header=False, show_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(no_wrap=True)
    for name, value in _pairs(found):
        if value:
            made.add_row(name, Text(printable(value)))
    return made


def _pairs(found: Inspection) -> Iterable[tuple[str, str]]:
    yield "digest", found.digest or ""
    yield "pin", found.pin or ""
    yield "signed by", found.signed_by or ""
    yield "base model", found.base_model or ""
    yield "rank", str(found.rank or "")
    yield "modules", ", ".join(found.target_modules)
    yield "dtype", found.dtype or ""
    if found.rank is not None:
        yield "vLLM", f"{found.min_engine} or newer" if found.min_engine else "any supported"
    memory = found.memory
    if memory is None:
        return
    each = f" on each of {memory.tensor_parallel_size} GPUs" if memory.tensor_parallel_size > 1 else ""
    if memory.slot_bytes is not None:
        yield "memory", f"{size(memory.slot_bytes)}{each} for this adapter's matrices"
    if memory.fleet_slot_bytes is not None:
        yield "slot", f"{size(memory.fleet_slot_bytes)}{each} at --max-lora-rank {memory.max_lora_rank}"
    if memory.preallocated_bytes is not None:
        yield "set aside", f"{size(memory.preallocated_bytes)}{each} for --max-loras {memory.max_loras}"


def _files(files: Sequence[File]) -> Table:
    made = table("FILE", "BYTES", "SHA256", right=("BYTES",))
    for file in files:
        made.add_row(file.path, str(file.size), file.sha256)
    return made


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
