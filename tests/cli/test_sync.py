"""``lorafleet sync`` as the Job runs it, in process and as a process."""

import errno
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lorafleet.artifacts.digest import hash_file
from lorafleet.cli import items, sync
from lorafleet.cli.sync import Stop, main, run_sync
from lorafleet.store import progress, termination, transfer
from lorafleet.store import publish as publishing
from lorafleet.store.fs import POSIX, PosixFileSystem
from lorafleet.store.plan import ItemProgress, ItemResult, SyncPlan, SyncProgress, SyncReport
from lorafleet.store.progress import Board, serve
from lorafleet.store.publish import publish
from tests.adapters import BASE, adapter
from tests.servers.web import web as files
from tests.store.faulty import FaultyFileSystem


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    adapter(tmp_path / "claim" / "good")
    adapter(tmp_path / "claim" / "bad", use_dora=True)
    return tmp_path


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _publish(place: Path, source: str, version: str = "1") -> dict[str, Any]:
    return {
        "adapter": source,
        "version": version,
        "source": {"volume": {"path": source}},
        "claim": str(place / "claim"),
    }


def _plan(place: Path, *items: dict[str, Any], **changes: Any) -> SyncPlan:
    fields = {"root": str(place / "volume"), "model": "/m", "baseModels": [BASE], "items": items}
    return SyncPlan.model_validate(fields | changes)


def _served(place: Path) -> list[str]:
    return sorted(path.parent.name for path in (place / "volume" / "serving").glob("*/*"))


def _environment(place: Path, plan: SyncPlan | str) -> dict[str, str]:
    text = plan if isinstance(plan, str) else plan.model_dump_json(exclude_none=True)
    return {"LORAFLEET_PLAN": text, "TERMINATION_LOG": str(place / "log"), "PATH": os.environ["PATH"]}


def _start(place: Path, plan: SyncPlan | str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "lorafleet", *(arguments or ("sync",))]
    return subprocess.Popen(command, env=_environment(place, plan), stdout=subprocess.PIPE, text=True)


def _report(place: Path) -> SyncReport:
    return SyncReport.model_validate_json((place / "log").read_bytes())


def _until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_one_bad_item_does_not_block_the_others(place: Path) -> None:
    unknown = {"adapter": "x", "version": "1", "source": {}}
    asked = (_publish(place, "bad"), unknown, {"servedName": "../x"}, _publish(place, "good"), _publish(place, "gone"))
    report = run_sync(_plan(place, *asked))
    reasons = [result.reason for result in report.results]
    assert reasons == ["FeatureNotSupported", "SourceNotSupported", "UnsafePath", None, "SourceNotFound"]
    assert [result.i for result in report.results] == [0, 1, 2, 3, 4]
    assert [result.retry for result in report.results] == [False, False, False, None, True]
    assert _served(place) == ["good"]
    assert all(result.message for result in report.results if result.reason)


def test_an_unforeseen_error_is_that_items_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "remove", lambda *_: 1 / 0)
    report = run_sync(_plan(place, {"servedName": "x/1-0123456789ab"}, _publish(place, "good")))
    assert [(result.reason, result.retry) for result in report.results] == [("SyncFailed", True), (None, None)]


def test_a_published_item_reports_what_the_status_needs(place: Path) -> None:
    (result,) = run_sync(_plan(place, _publish(place, "good"), minId=7)).results
    manifest = json.loads(next((place / "volume/serving").glob("*/*/lorafleet.json")).read_text())
    found = result.to_json()
    (notice,) = found.pop("notices")
    assert notice["reason"] == "ShapesNotChecked"
    assert found.pop("slotBytes") == result.slot_bytes == 2 * 2 * 8 * (16 + 16)
    assert found == {name: manifest.get(name) for name in found} | {"i": 0}
    assert found.keys() == {"i", "id", "digest", "servedName", "rank", "targetModules", "sizeBytes", "dtype"}
    assert found["id"] == 7


def test_running_a_plan_again_gives_the_same_report(place: Path) -> None:
    plan = _plan(place, _publish(place, "good"), _publish(place, "bad"))
    assert run_sync(plan).results == run_sync(plan).results


def test_removals_make_room_before_anything_is_published(place: Path) -> None:
    (old,) = run_sync(_plan(place, _publish(place, "good", "0"))).results
    fs = FaultyFileSystem(10**9, None)
    report = run_sync(_plan(place, _publish(place, "good"), {"servedName": old.served_name}), fs=fs)
    assert [result.reason for result in report.results] == [None, None]
    assert report.results[1] == ItemResult(i=1, served_name=old.served_name)
    removed = next(n for n, step in enumerate(fs.steps) if step.startswith("remove_folder"))
    assert removed < fs.steps.index("make_folder tree")


def test_a_report_says_what_the_volume_looks_like(place: Path) -> None:
    plan = _plan(place, _publish(place, "good"), known=[])
    served = (place / "volume/serving").glob("*/*")
    report = run_sync(plan)
    assert report.volume is not None
    assert report.volume.sharing == "hardlink"
    assert (report.volume.used_bytes or 0) >= sum(path.stat().st_size for path in next(served).iterdir())
    assert report.volume.free_bytes
    assert report.volume.strays == ()
    (folder,) = (place / "volume/serving").glob("*/*")
    os.utime(folder, (0, 0))
    found = run_sync(_plan(place, known=[])).volume
    assert found is not None
    assert found.strays == (f"good/{folder.name}",)


def test_a_quota_fails_one_item_and_not_the_next(place: Path) -> None:
    (place / "claim/good/README.md").write_bytes(b"x" * 200_000)
    adapter(place / "claim/small")
    report = run_sync(_plan(place, _publish(place, "good"), _publish(place, "small"), quotaBytes=150_000))
    assert [(result.reason, result.retry) for result in report.results] == [("QuotaExceeded", True), (None, None)]


def test_a_scrub_and_a_repair_are_items_too(place: Path) -> None:
    (old,) = run_sync(_plan(place, _publish(place, "good"))).results
    (weights,) = (place / "volume/serving").glob("*/*/*.safetensors")
    weights.write_bytes(b"x" * weights.stat().st_size)
    (scrubbed,) = run_sync(_plan(place, {"scrub": True})).results
    assert (scrubbed.scrubbed, scrubbed.damaged) == (1, (old.served_name,))
    repair = _publish(place, "good") | {"repair": old.served_name, "digest": old.digest}
    (repaired,) = run_sync(_plan(place, repair)).results
    assert repaired == old
    (scrubbed,) = run_sync(_plan(place, {"scrub": True})).results
    assert (scrubbed.scrubbed, scrubbed.damaged) == (1, ())


def test_items_wait_for_their_sources_side_by_side(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(sync.SIDE_BY_SIDE, timeout=20)
    real = items.publish

    def meet(*args: Any, **more: Any) -> Any:
        together.wait()
        return real(*args, **more)

    monkeypatch.setattr(items, "publish", meet)
    report = run_sync(_plan(place, *(_publish(place, "good", str(n)) for n in range(sync.SIDE_BY_SIDE))))
    assert sorted(result.id or 0 for result in report.results) == list(range(1, sync.SIDE_BY_SIDE + 1))


def test_a_failed_item_reports_what_its_source_stood_for(place: Path) -> None:
    (place / "bad").mkdir()
    archive = b"no archive at all"
    (place / "bad" / "a.tar").write_bytes(archive)
    digest = hashlib.sha256(archive).hexdigest()
    with files(place / "bad") as server:
        source = {"http": {"url": f"{server.url}/a.tar", "sha256": digest}}
        (result,) = run_sync(_plan(place, {"adapter": "x", "version": "1", "source": source})).results
    assert (result.reason, result.pin) == ("ArchiveInvalid", f"sha256:{digest}")


def test_an_entry_of_a_remote_source_is_fetched_once(place: Path) -> None:
    hashes = {path.name: hash_file(path.parent, path.name).sha256 for path in (place / "claim/good").iterdir()}
    with files(place / "claim/good") as server:
        listed = [{"path": name, "sha256": sha256} for name, sha256 in hashes.items()]
        source = {"http": {"url": server.url, "files": listed}}
        plan = _plan(place, {"adapter": "x", "version": "1", "entry": "e", "source": source})
        (first,) = run_sync(plan).results
        asked = len(server.requests)
        assert run_sync(plan).results == (first,)
        assert len(server.requests) == asked > 0


def _ask(port: int) -> SyncProgress:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=10) as answer:
        return SyncProgress.model_validate_json(answer.read())


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_job_tells_how_far_it_is_while_it_fetches(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, seen = _free_port(), list[SyncProgress]()
    real = items.Board.show

    def show(board: Any, i: int, done: int, total: int | None) -> None:
        real(board, i, done, total)
        if done == total and total:
            seen.append(_ask(port))

    monkeypatch.setattr(items.Board, "show", show)
    size = sum(path.stat().st_size for path in (place / "claim/good").iterdir())
    assert main(_plan(place, _publish(place, "good")).model_dump_json(), place / "log", "INFO", port) == 0
    assert seen[0] == SyncProgress(items=(ItemProgress(i=0, done=size, total=size),))
    with pytest.raises(OSError, match="refused"):
        _ask(port)


def test_a_job_whose_port_is_taken_goes_on_without(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert main(_plan(place, _publish(place, "good")).model_dump_json(), place / "log", "INFO", port) == 0
    assert _report(place).results[0].reason is None


def test_progress_answers_nothing_else() -> None:
    stop = serve(Board(), port := _free_port())
    assert stop is not None
    try:
        assert _ask(port) == SyncProgress()
        for path in ("/", "/progress/x", "/../etc/passwd"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10)
            assert caught.value.code == 404
    finally:
        stop()


def test_a_broken_volume_is_reported_for_every_item(place: Path) -> None:
    report = run_sync(_plan(place, _publish(place, "good"), _publish(place, "bad"), root=str(place / "missing")))
    assert [(result.reason, result.retry) for result in report.results] == [("VolumeError", True)] * 2


def test_a_full_volume_fails_one_item_to_be_retried(place: Path) -> None:
    run_sync(_plan(place))
    report = run_sync(_plan(place, _publish(place, "good")), fs=FaultyFileSystem(9, errno.ENOSPC))
    assert [(result.reason, result.retry) for result in report.results] == [("VolumeFull", True)]


def test_items_after_the_deadline_are_reported_to_be_retried(place: Path) -> None:
    report = run_sync(_plan(place, _publish(place, "good")), stop=Stop(0.0))
    assert [(result.reason, result.retry) for result in report.results] == [("SyncFailed", True)]
    assert _served(place) == []


def test_nothing_is_removed_after_the_deadline(place: Path) -> None:
    (old,) = run_sync(_plan(place, _publish(place, "good"))).results
    report = run_sync(_plan(place, {"servedName": old.served_name}), stop=Stop(0.0))
    assert report.results[0].retry
    assert _served(place) == ["good"]


def test_a_stop_in_the_middle_of_a_file_ends_that_item(place: Path) -> None:
    stop = Stop(60.0)

    class Stopping(PosixFileSystem):
        def write_file(self, path: Path, chunks: Any, *, sync: bool = True) -> None:
            if path.parent.name == "tree":
                stop.ask()
            POSIX.write_file(path, chunks, sync=sync)

    report = run_sync(_plan(place, _publish(place, "good"), _publish(place, "good", "2")), stop=stop, fs=Stopping())
    assert [(result.reason, result.retry) for result in report.results] == [("SyncFailed", True)] * 2
    assert list((place / "volume/staging").iterdir()) == []
    assert _served(place) == []


def test_storage_that_hangs_does_not_keep_the_report(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    plan = _plan(place, _publish(place, "good"), _publish(place, "hangs"), deadlineSeconds=0.5)
    real = publish

    def hang(volume: Any, request: Any, *args: Any, **more: Any) -> Any:
        if request.adapter == "hangs":
            release.wait(30)
        return real(volume, request, *args, **more)

    class Exited(BaseException):
        pass

    def leave(code: int) -> None:
        raise Exited(code)

    monkeypatch.setattr(items, "publish", hang)
    monkeypatch.setattr(sync, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(Exited) as caught:
        main(plan.model_dump_json(), place / "log", "INFO")
    release.set()
    assert caught.value.args == (0,)
    assert [result.reason for result in _report(place).results] == [None, "SyncFailed"]


def test_the_process_writes_its_report_and_json_lines(place: Path) -> None:
    process = _start(place, _plan(place, _publish(place, "good"), _publish(place, "bad")))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert [result.reason for result in _report(place).results] == [None, "FeatureNotSupported"]
    lines = [json.loads(line) for line in out.splitlines()]
    assert all({"ts", "level", "msg"} <= line.keys() for line in lines)
    assert {line["adapter"] for line in lines if "adapter" in line} == {"good", "bad"}


@pytest.mark.parametrize("plan", ["{}", "nonsense", '{"root": "x"}'])
def test_a_plan_that_cannot_be_read_is_reported(place: Path, plan: str) -> None:
    process = _start(place, plan)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert "plan" in (_report(place).error or "")


def test_a_report_that_cannot_be_written_is_a_failure(place: Path) -> None:
    (place / "log").mkdir()
    process = _start(place, _plan(place, _publish(place, "good")))
    process.communicate(timeout=60)
    assert process.returncode == 1


def test_a_job_that_is_told_to_stop_reports_and_leaves_nothing(place: Path) -> None:
    # A sparse file of 8 GB, which takes long enough to be stopped.
    folder = adapter(place / "claim" / "large")
    weights = folder / "adapter_model.safetensors"
    os.truncate(weights, 8 * 1000**3)
    plan = _plan(place, _publish(place, "good"), _publish(place, "large"))
    process = _start(place, plan)
    staging = place / "volume" / "staging"
    _until(lambda: any(path.stat().st_size > 10_000_000 for path in staging.glob("large.*/parts/*")))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    results = _report(place).results
    assert [(result.reason, result.retry) for result in results] == [(None, None), ("SyncFailed", True)]
    assert "told to stop" in (results[1].message or "")
    assert list(staging.iterdir()) == []
    assert _served(place) == ["good"]


def test_versions_are_not_begun_for_ever(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "BEGIN_SECONDS", 0.0)
    versions = (_publish(place, "good", "1"), _publish(place, "good", "2"))
    report = run_sync(_plan(place, *versions, {"servedName": "good/0-0123456789ab"}))
    assert [(result.i, result.reason) for result in report.results] == [(0, None), (2, None)]
    assert report.left == 1, "one is begun, so that there is progress, and a removal makes room"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def test_a_report_that_is_too_long_waits_for_the_operator(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "SURE_ITEMS", 1)
    monkeypatch.setattr(termination, "MAX_REPORT_BYTES", 500)
    port = _free_port()
    answers: list[bytes] = []

    def ask() -> None:
        while not answers:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/report", timeout=20) as answer:
                answers.append(answer.read())

    asking = threading.Thread(target=ask)
    asking.start()
    plan = _plan(place, *(_publish(place, "good", str(number)) for number in range(9)))
    assert main(plan.model_dump_json(), place / "log", "INFO", port) == 0
    asking.join(20)
    part, whole = _report(place), SyncReport.model_validate_json(answers[0])
    assert [result.reason for result in whole.results] == [None] * 9
    assert part.full == hashlib.sha256(answers[0]).hexdigest()
    assert (len(part.results), part.left) == (1, 8)


def test_a_report_that_nobody_asks_for_is_not_waited_for_long(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(termination, "SURE_ITEMS", 1)
    monkeypatch.setattr(termination, "MAX_REPORT_BYTES", 500)
    monkeypatch.setattr(sync, "TAKE_SECONDS", 0.1)
    plan = _plan(place, *(_publish(place, "good", str(number)) for number in range(9)))
    assert main(plan.model_dump_json(), place / "log", "INFO", _free_port()) == 0
    assert (len(_report(place).results), _report(place).left) == (1, 8)


def test_whoever_asks_for_a_report_too_early_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "REPORT_SECONDS", 0.01)
    port = _free_port()
    silence = serve(Board(), port)
    assert silence is not None
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/report", timeout=20)
    silence()
    assert caught.value.code == 503


def test_large_adapters_are_few_at_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "LARGE_BYTES", 100)
    monkeypatch.setattr(transfer, "_PLACES", threading.BoundedSemaphore(2))
    together, most, lock = 0, 0, threading.Lock()
    real = publishing._publish

    def counted(*args: Any) -> Any:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        try:
            return real(*args)
        finally:
            with lock:
                together -= 1

    monkeypatch.setattr(publishing, "_publish", counted)
    report = run_sync(_plan(place, *(_publish(place, "good", str(number)) for number in range(12))))
    assert [result.reason for result in report.results] == [None] * 12
    assert most <= 2


def test_sync_does_not_load_the_operators_libraries(place: Path) -> None:
    code = (
        "import sys; from lorafleet.cli.sync import main; from pathlib import Path; import os;"
        "main(os.environ['LORAFLEET_PLAN'], Path(os.environ['TERMINATION_LOG']), 'ERROR');"
        "heavy = {'kopf', 'kubernetes', 'aiohttp', 'httpx', 'rich', 'yaml'} & set(sys.modules);"
        "sys.exit(' '.join(heavy) or 0)"
    )
    plan = _plan(place, _publish(place, "good"))
    done = subprocess.run([sys.executable, "-c", code], env=_environment(place, plan), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_the_version_is_printed(place: Path) -> None:
    process = _start(place, "", "version")
    out, _ = process.communicate(timeout=60)
    assert out.strip() == "0.1.0"
