"""The command as such: help, completion, and that no command pays for another."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters import adapter
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


def test_sync_starts_without_what_only_people_need(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "lorafleet", "sync", "--plan", "{}", "--termination-log", log],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0
    assert "plan" in log.read_text()
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "lorafleet.cli.sync" in imported
    others = {"rich", "yaml", "lorafleet.cli.inspect", "lorafleet.cli.store", "kopf", "kubernetes", "obstore", "numpy"}
    others |= {"lorafleet.cli.people", "lorafleet.cli.asking", "lorafleet.kube"}
    assert imported & others == set()


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
