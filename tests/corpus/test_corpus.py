"""Every adapter of the corpus through the real path of publishing: one answer each, and nothing left behind."""

import re
from pathlib import Path

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.check import Expectations, check
from lorafleet.artifacts.errors import RETRIED, ArtifactError
from lorafleet.artifacts.files import Limits
from lorafleet.sources.volume import VolumeSource
from lorafleet.store.build import Request
from lorafleet.store.fs import POSIX
from lorafleet.store.layout import Layout, prepare
from lorafleet.store.publish import publish
from lorafleet.store.volume import Volume
from tests.corpus.bad_folders import BAD_FOLDERS
from tests.corpus.base import WEIGHTS, Base, Case
from tests.corpus.cases import BAD, CASES, GOOD

BASE = Base()
MAX_RANK = 16


def fleet(case: Case, base: Base = BASE) -> Expectations:
    """What a fleet of the base model expects."""
    return Expectations((base.name,), MAX_RANK, case.engine, Limits(), base.config)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_adapter_gets_its_answer_and_leaves_nothing_else(case: Case, tmp_path: Path) -> None:
    source = tmp_path / "claim" / "adapter"
    source.mkdir(parents=True)
    case.make(source, BASE)
    layout = Layout(tmp_path / "volume")
    layout.root.mkdir()
    prepare(layout, POSIX)
    request = Request("py", "1.0", "/models/tiny", fleet(case))

    def left() -> list[str]:
        return [str(path) for folder in (layout.staging, layout.serving, layout.trash) for path in folder.rglob("*")]

    if case.reason is not None:
        with pytest.raises(ArtifactError) as caught:
            publish(Volume(layout, POSIX), request, lambda pin: VolumeSource(tmp_path / "claim", "adapter"))
        assert (caught.value.reason, left()) == (case.reason, []), caught.value.message
        assert caught.value.retry is (case.reason in RETRIED)
        assert re.search("[:;] ", caught.value.message), "a message says the next move"
        caught.value.message.encode()
        return
    outcome = publish(Volume(layout, POSIX), request, lambda pin: VolumeSource(tmp_path / "claim", "adapter"))
    assert outcome.info is not None
    assert [reason for reason, _ in outcome.info.notices] == ([case.notice] if case.notice else [])
    assert outcome.info.slot_bytes
    folder = layout.serving / outcome.manifest.served_name
    assert [path for path in left() if not Path(path).is_relative_to(folder)] == [str(folder.parent)]


@pytest.mark.parametrize("case", [case for case in CASES if case not in BAD_FOLDERS], ids=str)
def test_the_corpus_fits_any_llama(case: Case, tmp_path: Path) -> None:
    base = Base("acme/other", 96, 4, 2, 32, 160, 3, 600)
    folder = tmp_path / "adapter"
    folder.mkdir()
    case.make(folder, base)
    if "link" in case.name:
        (folder / WEIGHTS).unlink()
        (folder / WEIGHTS).hardlink_to(folder.with_name("adapter-blob"))
    if case.reason is None:
        assert check(folder, fleet(case, base)).rank
        return
    with pytest.raises(ArtifactError) as caught:
        check(folder, fleet(case, base))
    assert caught.value.reason is case.reason


def test_the_corpus_is_as_large_as_it_has_to_be() -> None:
    assert len(BAD) >= 60
    assert GOOD
    assert all(case.reason is None for case in GOOD)


def test_every_reason_that_is_about_bytes_has_a_case() -> None:
    about_bytes = {
        Reason.CONFIG_MISSING,
        Reason.WEIGHTS_MISSING,
        Reason.CONFIG_INVALID,
        Reason.PEFT_TYPE_NOT_SUPPORTED,
        Reason.FEATURE_NOT_SUPPORTED,
        Reason.BASE_MODEL_MISMATCH,
        Reason.RANK_TOO_HIGH,
        Reason.WEIGHTS_INVALID,
        Reason.PICKLE_REFUSED,
        Reason.SIZE_LIMIT_EXCEEDED,
        Reason.UNSAFE_PATH,
        Reason.SHAPE_MISMATCH,
        Reason.WEIGHTS_NOT_FINITE,
    }
    assert about_bytes <= {case.reason for case in BAD}
