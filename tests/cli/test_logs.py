"""Log lines are JSON, whatever is logged."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from lorafleet import logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    root.handlers = []
    logs.configure("INFO", stream)
    yield stream
    root.handlers = before
    root.setLevel(level)


def _line(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_has_time_level_message_and_what_it_is_about(stream: io.StringIO) -> None:
    logging.getLogger("x").warning("took %d s\nin all", 3, extra={"adapter": "py", "odd": object})
    found = _line(stream)
    assert found["ts"].endswith("Z")
    assert (found["level"], found["logger"], found["msg"], found["adapter"]) == (
        "warning",
        "x",
        "took 3 s\nin all",
        "py",
    )


def test_an_exception_is_part_of_its_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "ValueError: broken" in _line(stream)["traceback"]


def test_what_is_below_the_level_is_not_logged(stream: io.StringIO) -> None:
    logging.getLogger("x").debug("hidden")
    assert stream.getvalue() == ""
