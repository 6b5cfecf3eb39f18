"""Every benchmark runs and says what it found; what it found is no test's business on a machine this noisy."""

import json
import subprocess
import sys

import pytest

from bench.__main__ import NAMES
from tests.harness.plane import ROOT


@pytest.mark.parametrize("name", NAMES)
def test_a_quick_run_prints_one_line_of_json(name: str) -> None:
    argv = [sys.executable, "-m", "bench", name, "--quick"]
    done = subprocess.run(argv, cwd=ROOT, text=True, capture_output=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["bench"] == name
    assert found["quick"] is True
    assert found["value"] >= 0
    assert found["bound"] > 0
    assert isinstance(found["ok"], bool)
    assert found["raw"]
