"""The command as such: help, completion, and that no command pays for another."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters import BASE, adapter
from tests.cli.commands import lorafleet

LOCAL = ("version", "sync", "operator", "inspect", "store", "store ls", "store verify", "store gc")
ASKING = ("get", "status", "explain", "history", "load-matrix")
VERBS = ("promote", "pause", "resume", "abort", "retry", "rollback")
COMMANDS = (*LOCAL, *ASKING, *VERBS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str) -> None:
    answer = lorafleet(*command.split(), "--help")
    assert answer.code == 0
    assert f"lorafleet {command}" in answer.out


def test_the_shell_completes_commands() -> None:
    asked = {"_LORAFLEET_COMPLETE": "complete_bash", "COMP_WORDS": "lorafleet store ", "COMP_CWORD": "2"}
    done = subprocess.run(
        [Path(sys.executable).with_name("lorafleet")],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["ls", "verify", "gc"]


def test_a_job_starts_without_what_only_people_and_large_adapters_need(tmp_path: Path) -> None:
    adapter(tmp_path / "claim" / "a")
    (tmp_path / "volume").mkdir()
    item = {"adapter": "a", "version": "1", "source": {"volume": {"path": "a"}}, "claim": str(tmp_path / "claim")}
    plan = {"root": str(tmp_path / "volume"), "model": BASE, "baseModels": [BASE], "items": [item]}
    done = _job(tmp_path, LORAFLEET_PLAN=json.dumps(plan))
    assert done.returncode == 0
    assert '"servedName":"a/1-' in (tmp_path / "log").read_text()
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "lorafleet.cli.sync" in imported
    others = {"typer", "rich", "yaml", "lorafleet.cli.inspect", "kopf", "kubernetes", "obstore", "numpy"}
    assert imported & others == set()


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_a_job_says_as_any_command_what_is_wrong_with_its_environment(tmp_path: Path, port: str) -> None:
    done = _job(tmp_path, LORAFLEET_PLAN="{}", LORAFLEET_PROGRESS_PORT=port)
    assert done.returncode == 2
    assert "LORAFLEET_PROGRESS_PORT" in done.stderr
    assert not (tmp_path / "log").exists()


def _job(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lorafleet", "sync"],
        env={**os.environ, "TERMINATION_LOG": str(folder / "log"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_bar_is_shown_on_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "1.0", files={"tokenizer.json": b"x" * 5_000_000})
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lorafleet", "inspect", folder, "-o", "json"],
            env={**os.environ, "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            check=False,
            timeout=60,
        )
        os.set_blocking(ours, False)
        shown = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "fetching" in shown
    assert done.stdout.startswith("{")
    assert "fetching" not in done.stdout
    assert lorafleet("inspect", folder).err == ""
