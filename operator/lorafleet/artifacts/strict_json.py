"""JSON from people who may not mean well: no duplicate names, no NaN, no infinity, bounded depth and size.

vLLM reads the same bytes with Python's ``json``, which keeps the last of two equal names; whoever reads them otherwise
(the Rust reader of safetensors, a reviewer) may see the first. So such a document is refused, not interpreted.
"""

import json
import math
from typing import Any


def parse_object(data: bytes) -> dict[str, Any]:
    """The object in ``data`` (UTF-8 without a byte order mark). Raises ValueError with what is wrong with it."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__} where an object is expected")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice[:100]!r} is in it twice")
    return result


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number
