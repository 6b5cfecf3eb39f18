"""How commands print: tables, sizes, documents and bars, on whatever standard output and error are."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import yaml
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

_WIDTH = 100
"""Of pages that go to a file or a pipe."""


def console(stream: TextIO) -> Console:
    """Where pages go; as wide as the terminal, or as COLUMNS says."""
    wide = stream.isatty() or "COLUMNS" in os.environ
    return Console(file=stream, width=None if wide else _WIDTH, highlight=False, emoji=False, markup=False)


def table(*columns: str, right: Iterable[str] = (), fold: Iterable[str] = ()) -> Table:
    """A table with these headings; ``right``: columns of numbers, ``fold``: those that may take more than one line."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column not in fold,
        )
    return made


def put(page: Console, found: Table) -> None:
    """Print a table; on a page that is too narrow lines run over its edge, and nothing is cut off."""
    before, endless = page.width, page.options.update(width=10_000)
    for column in found.columns:
        if column.no_wrap:
            cells = [column.header, *column.cells] if found.show_header else [*column.cells]
            column.min_width = max((Measurement.get(page, endless, cell).maximum for cell in cells), default=0)
    page.width = max(before, Measurement.get(page, endless, found).minimum)
    page.print(found)
    page.width = before


def printable(text: str) -> str:
    """Text from files and servers without what would steer a terminal."""
    return "".join(character if character.isprintable() else "�" for character in text)


def size(count: int) -> str:
    """Bytes for people: ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def document(found: Mapping[str, Any], form: str) -> str:
    """A document as ``json`` or ``yaml``, with a newline at its end."""
    if form == "json":
        return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    return yaml.safe_dump(dict(found), sort_keys=False, allow_unicode=True, width=2000)


def listed(found: Sequence[Mapping[str, Any]]) -> str:
    """Items of a list in YAML, as one pastes them into a manifest."""
    return yaml.safe_dump([dict(item) for item in found], sort_keys=False, allow_unicode=True, width=2000).rstrip()


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on standard error, where that is a terminal; it is told of the bytes so far and of all, from any thread."""
    stderr = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
