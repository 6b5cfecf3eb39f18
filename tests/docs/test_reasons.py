"""docs/reasons.md has a row for each reason, with a meaning and a next move, and no row for a word that is none."""

import re
from pathlib import Path

from lorafleet.api.reasons import Reason

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)


def rows(page: str) -> list[str]:
    return [match[1] for match in ROW.finditer((DOCS / page).read_text())]


def test_each_reason_has_exactly_one_row() -> None:
    assert sorted(rows("reasons.md")) == sorted(reason.value for reason in Reason)


def test_engines_page_has_each_reason_of_the_diagnosis() -> None:
    code = (DOCS.parent / "operator" / "lorafleet" / "engines" / "diagnosis.py").read_text()
    named = {Reason[name].value for name in re.findall(r"Diagnosis\(\s*Reason\.(\w+)", code)}
    assert named
    assert named <= set(re.findall(r"^\| `(\w+)` \| (?:yes|no) \|", (DOCS / "engines.md").read_text(), re.MULTILINE))
