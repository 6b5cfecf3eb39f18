"""``lorafleet inspect`` says of every adapter of the corpus what publishing says of it."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lorafleet.cli.inspect import run
from lorafleet.cli.question import Question
from tests.corpus.base import Case
from tests.corpus.cases import CASES
from tests.corpus.test_corpus import BASE, fleet


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_verdict_is_that_of_publishing(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "claim" / "adapter"
    folder.mkdir(parents=True)
    case.make(folder, BASE)
    code = run(Question(folder, fleet(case), root=tmp_path / "claim"), "json")
    found = json.loads(capsys.readouterr().out)
    refused = [check for check in found["checks"] if check["result"] == "refused"]
    assert code == (0 if case.reason is None else 1)
    assert found["accepted"] is (case.reason is None)
    # Publishing ends at the first.
    assert [check["reason"] for check in refused[:1]] == ([case.reason] if case.reason else [])
    assert [notice["reason"] for notice in found["notices"]] == ([case.notice] if case.notice else [])
