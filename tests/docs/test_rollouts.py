"""The page on rollouts names a test for each rule, and it exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_rule_names_its_test() -> None:
    files = list((ROOT / "tests" / "rollout").glob("test_*.py"))
    there = {name for file in files for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)}
    there |= {file.name for file in files}
    page = (ROOT / "docs" / "rollouts.md").read_text()
    rows = [line.split("|")[3].strip(" `") for line in page.splitlines() if re.search(r"\| `test_[\w.]+` \|$", line)]
    assert len(rows) > 20
    assert set(rows) <= there
