"""``lorafleet load-matrix``: which engine has which version. Pure.

What each engine lists is in no status: a fleet's names what an engine lacks of the versions with traffic, an adapter's
says how many engines have each version. The matrix says what follows from both, and ``?`` where nothing does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from lorafleet.api.adapter import VersionPhase, VersionStatus
from lorafleet.api.fleetstatus import EngineStatus
from lorafleet.cli import summary
from lorafleet.cli.fleetpicture import engines
from lorafleet.cli.seen import Adapter, Fleet
from lorafleet.cli.terminal import table

MANY_ENGINES = 16
MANY_ROWS = 40
_NAMED = 3


class Cell(StrEnum):
    """What is known of a version on an engine."""

    LOADED = "●"
    MISSING = "○"
    NOT_WANTED = "–"
    UNKNOWN = "?"


_STYLES = {Cell.LOADED: "green", Cell.MISSING: "bold red", Cell.NOT_WANTED: "dim", Cell.UNKNOWN: "yellow"}
_WORDS = {Cell.LOADED: "loaded", Cell.MISSING: "missing", Cell.NOT_WANTED: "notWanted", Cell.UNKNOWN: "unknown"}


@dataclass(frozen=True, slots=True)
class Row:
    """A version that engines have or should have."""

    adapter: str
    version: str
    weight: int
    cells: tuple[Cell, ...]

    @property
    def loaded(self) -> int:
        """On how many engines it is known to be."""
        return self.cells.count(Cell.LOADED)

    @property
    def wanted(self) -> int:
        """On how many engines it should be."""
        return sum(cell is not Cell.NOT_WANTED for cell in self.cells)

    @property
    def complete(self) -> bool:
        """Whether it is wherever it should be."""
        return self.loaded == self.wanted


def rows(fleet: Fleet, adapters: Sequence[Adapter]) -> tuple[Row, ...]:
    """The matrix of a fleet and its adapters."""
    found = []
    for adapter in sorted(adapters, key=lambda one: one.name):
        for version in adapter.status.versions:
            if version.phase in (VersionPhase.LOADING, VersionPhase.LOADED, VersionPhase.DRAINING):
                weight = adapter.weight(version.name)
                found.append(Row(adapter.name, version.name, weight, _cells(fleet, version, weight)))
    return tuple(found)


def page(fleet: Fleet, found: Sequence[Row], everything: bool = False) -> Iterator[RenderableType]:
    """The matrix where it fits a page, or ``everything``; else a line for each version that is not complete."""
    names = [engine.name for engine in fleet.status.engines]
    if everything or (len(names) <= MANY_ENGINES and len(found) <= MANY_ROWS):
        yield _table(found, len(names))
        yield Text()
        yield Text("● loaded   ○ missing   – not wanted   ? one of several engines lacks it", style="dim")
    else:
        short = [row for row in found if not row.complete]
        if short:
            yield _counts(short, names)
            yield Text()
        yield Text(
            f"{len(found) - len(short)} of {len(found)} versions are loaded wherever they should be; --all shows all"
        )
    yield Text()
    yield engines(fleet, numbered=True)


def document(fleet: Fleet, found: Sequence[Row]) -> dict[str, Any]:
    """The matrix for programs."""
    names = [engine.name for engine in fleet.status.engines]
    return {
        "schemaVersion": 1,
        "fleet": fleet.name,
        "namespace": fleet.identity.namespace,
        "engines": [{"name": one.name, "ready": one.ready} for one in fleet.status.engines],
        "versions": [
            {
                "adapter": row.adapter,
                "version": row.version,
                "weight": row.weight,
                "loaded": row.loaded,
                "wanted": row.wanted,
                "engines": {name: _WORDS[cell] for name, cell in zip(names, row.cells, strict=True)},
            }
            for row in found
        ],
    }


def _cells(fleet: Fleet, version: VersionStatus, weight: int) -> tuple[Cell, ...]:
    cells = [_cell(engine, version, weight) for engine in fleet.status.engines]
    lacking = (version.ready_engines or 0) - (version.loaded_engines or 0)
    if lacking and cells.count(Cell.MISSING) == lacking:
        cells = [Cell.LOADED if cell is Cell.UNKNOWN else cell for cell in cells]
    return tuple(cells)


def _cell(engine: EngineStatus, version: VersionStatus, weight: int) -> Cell:
    if not engine.ready or version.phase is VersionPhase.DRAINING:
        return Cell.NOT_WANTED
    if version.served_name in engine.missing or not version.loaded_engines:
        return Cell.MISSING
    if version.loaded_engines >= (version.ready_engines or 0):
        return Cell.LOADED
    return Cell.LOADED if weight and not engine.catching_up else Cell.UNKNOWN


def _table(found: Sequence[Row], engines_count: int) -> RenderableType:
    numbers = [str(number) for number in range(1, engines_count + 1)]
    made = table("ADAPTER", "VERSION", "WEIGHT", *numbers, right=("WEIGHT",))
    for row in found:
        cells = [Text(cell, style=_STYLES[cell]) for cell in row.cells]
        made.add_row(row.adapter, row.version, f"{row.weight}%", *cells)
    return made


def _counts(found: Sequence[Row], names: Sequence[str]) -> RenderableType:
    made = table(
        "ADAPTER", "VERSION", "WEIGHT", "LOADED", "MISSING ON", right=("WEIGHT", "LOADED"), fold=("MISSING ON",)
    )
    for row in found:
        where = [name for name, cell in zip(names, row.cells, strict=True) if cell is Cell.MISSING]
        more = f" and {len(where) - _NAMED} more" if len(where) > _NAMED else ""
        text = ", ".join(where[:_NAMED]) + more or summary.NONE
        made.add_row(row.adapter, row.version, f"{row.weight}%", f"{row.loaded}/{row.wanted}", text)
    return made
