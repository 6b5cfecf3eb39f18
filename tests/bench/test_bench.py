"""Every benchmark does its work and says what it found; the figures are no test's business on a machine this noisy."""

import json
import subprocess
import sys
from typing import Any

import pytest

from bench.__main__ import NAMES
from tests.harness.plane import ROOT

LOADS = {"fanout": 2 * 3, "hung": 3 + 3 + 2, "repair": 3 + 1, "idle": 2 * 3, "objects": (5 + 10 + 20) * 2}
"""The loads that the engines see in a quick run."""
CONVERGE = 3 * 4 * 5
"""The same of `converge` for each load time: by the operator and by the bare client in both its ways."""


def loads(raw: dict[str, Any]) -> int:
    return int(raw["loads"])


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_does_its_work_and_prints_one_line_of_json(name: str) -> None:
    argv = [sys.executable, "-m", "bench", name, "--quick"]
    done = subprocess.run(argv, cwd=ROOT, text=True, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["bench"] == name
    assert found["quick"] is True
    assert isinstance(found["value"], float)
    assert found["bound"] > 0
    assert isinstance(found["ok"], bool)
    if name == "converge":
        assert [loads(found["raw"][each]) for each in ("loads_of_10_ms", "loads_of_0_ms")] == [CONVERGE, CONVERGE]
    elif name == "sync":
        assert set(found["raw"]) == {"bytes", "http", "s3", "huggingFace", "oci"}
        assert found["also"] == {"memory": True}
    elif name == "bulk":
        assert found["raw"]["adapters"] == 90
        assert {found["raw"][line]["jobs"] for line in ("near", "far")} == {2}
    elif name == "publish":
        assert found["also"] == {"memory": True}
    elif name == "dedupe":
        assert found["raw"]["versions"] == 20
        assert found["ok"]
    elif name == "rollback":
        assert found["also"] == {"no_request_failed": True}
        assert all(len(counts) == 2 for counts in found["raw"]["requests"].values())
    elif name == "split":
        assert all(found["also"].values())
        assert set(found["raw"]) == {"at_5", "at_25", "at_50"}
    elif name == "router":
        assert found["also"]["no_request_failed"]
        assert set(found["raw"]["requests_per_s"]) == {"ours", "rust", "rust_round_robin", "direct"}
    elif name == "routes":
        assert found["also"]["no_request_failed"]
        assert set(found["raw"]["in_force_s"]) == {"10", "100"}
    else:
        assert loads(found["raw"]) == LOADS[name]
