"""What a benchmark found, and the arithmetic they share. No I/O but progress."""

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """``value`` is held against ``bound``; ``also`` are further things that must be true. ``raw`` is all behind it."""

    value: float
    bound: float
    unit: str
    raw: Mapping[str, Any]
    also: Mapping[str, bool] = field(default_factory=dict)

    def line(self, bench: str, quick: bool) -> str:
        """The line of JSON."""
        found = {
            "bench": bench,
            "value": round(self.value, 4),
            "bound": self.bound,
            "ok": self.value <= self.bound and all(self.also.values()),
            "unit": self.unit,
            "quick": quick,
            "also": self.also,
            "raw": self.raw,
        }
        return json.dumps(found)


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return float(statistics.median(values))


def rounded(values: Sequence[float]) -> list[float]:
    """To tenths of milliseconds, for people."""
    return [round(value, 4) for value in values]


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """The slope of the line through (log size, log value): 1 when the value grows as the size does."""
    xs = [math.log(size) for size in sizes]
    ys = [math.log(max(value, 1e-9)) for value in values]
    return statistics.linear_regression(xs, ys).slope


def say(line: str) -> None:
    """Progress, on standard error."""
    print(line, file=sys.stderr, flush=True)
