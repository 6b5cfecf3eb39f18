"""JSON from people who may not mean well: no duplicate names, no NaN, no infinity, bounded depth and size.

vLLM reads the same bytes with Python's ``json``, which keeps the last of two equal names; whoever reads them otherwise
(the Rust reader of safetensors, a reviewer) may see the first, or refuse it. So such a document is refused, not
interpreted.
"""

import json
import math
import re
from typing import Any

_MAX_DEPTH = 64
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


def parse_object(data: bytes) -> dict[str, Any]:
    """The object in ``data`` (UTF-8 without a byte order mark). Raises ValueError with what is wrong with it."""
    text = data.decode("utf-8")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_constant=_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if data.count(b"[") + data.count(b"{") > _MAX_DEPTH and _is_deep(value):
        raise ValueError("it is nested too deep")
    if _HALF_CHARACTER.search(text):
        # Two halves are one character and pass; a lone one is no text, and no other reader takes it.
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__} where an object is expected")
    return value


def _is_deep(value: Any) -> bool:
    """Whether ``value`` is nested deeper than a writer of JSON can be trusted with."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list)))
        level = [item for items in inner for item in items if isinstance(item, (dict, list))]
        if not level:
            return False
    return True


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice[:100]!r} is in it twice")
    return result


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _integer(text: str) -> int:
    if text == "-0":
        raise ValueError("the number -0 is no integer")
    return int(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:20]} is too large")
    return number
