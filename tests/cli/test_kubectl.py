"""kubectl finds the plugin and what completes it on the PATH; the shell completes names from the cluster."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.cluster.binaries import ensure
from tests.cli import objects
from tests.cli.commands import lorafleet
from tests.cli.standin import kubeconfig, put
from tests.harness.plane import Plane

HERE = Path(sys.executable).parent


@pytest.fixture
async def user(plane: Plane, namespace: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a user of a namespace with a fleet and three adapters."""
    await put(plane, namespace, objects.fleet(objects.engine("vllm-0")))
    for name in ("sql-lora", "swift-lora"):
        await put(plane, namespace, objects.serving(), name)
    await put(plane, namespace, objects.rolling(), "python-lora")
    return {
        "KUBECONFIG": kubeconfig(plane, tmp_path, namespace),
        "PATH": f"{HERE}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "NO_COLOR": "1",
    }


async def run(user: dict[str, str], *words: str | Path, **more: str) -> str:
    """What a command prints."""
    done = await asyncio.to_thread(
        subprocess.run, words, env={**user, **more}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


async def test_kubectl_lorafleet_is_lorafleet(user: dict[str, str]) -> None:
    kubectl = ensure(["kubectl"])["kubectl"]
    shown = await run(user, kubectl, "lorafleet", "get", "adapters")
    assert [line.split()[0] for line in shown.splitlines()] == ["ADAPTER", "python-lora", "sql-lora", "swift-lora"]
    assert "Usage: kubectl lorafleet status" in await run(user, kubectl, "lorafleet", "status", "--help")
    assert "  kubectl lorafleet status python-lora -w " in await run(
        user, kubectl, "lorafleet", "explain", "python-lora"
    )


async def test_kubectl_completes_what_follows_lorafleet(user: dict[str, str]) -> None:
    kubectl = ensure(["kubectl"])["kubectl"]
    done = await asyncio.to_thread(
        subprocess.run, [kubectl, "__completeNoDesc", "lorafleet", "status", "s"],
        env=user, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["sql-lora", "swift-lora", ":4"]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["hist"], ["history"]),
        (["get", ""], ["adapters", "fleets", "python-lora", "sql-lora", "swift-lora"]),
        (["get", "fleets", ""], ["hi-moe"]),
        (["status", "fleet/h"], ["fleet/hi-moe"]),
        (["load-matrix", ""], ["hi-moe"]),
        (["abort", "-n", "elsewhere", ""], []),
        (["rollback", "python-lora", "--to", ""], ["1.1.0"]),
        (["explain", "nothing-begins-so"], []),
    ],
)
async def test_the_plugin_completes_from_the_cluster(user: dict[str, str], typed: list[str], found: list[str]) -> None:
    said = await run(user, HERE / "kubectl_complete-lorafleet", *typed)
    assert [line.partition("\t")[0] for line in said.splitlines()] == [*found, ":4"]


async def test_the_shell_completes_from_the_cluster(user: dict[str, str]) -> None:
    asked = {"_LORAFLEET_COMPLETE": "complete_bash", "COMP_WORDS": "lorafleet pause s", "COMP_CWORD": "2"}
    assert (await run(user, HERE / "lorafleet", **asked)).split() == ["sql-lora", "swift-lora"]


async def test_the_shell_completes_from_the_kubeconfig_that_was_typed(user: dict[str, str]) -> None:
    words = f"lorafleet pause --kubeconfig {user['KUBECONFIG']} s"
    asked = {"_LORAFLEET_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "4", "KUBECONFIG": "/none"}
    assert (await run(user, HERE / "lorafleet", **asked)).split() == ["sql-lora", "swift-lora"]


async def test_nothing_is_said_while_completing_without_a_cluster(user: dict[str, str]) -> None:
    asked = {"_LORAFLEET_COMPLETE": "complete_bash", "COMP_WORDS": "lorafleet pause s", "COMP_CWORD": "2"}
    assert (await run(user, HERE / "lorafleet", KUBECONFIG="/none", **asked)).split() == []


def test_the_plugin_needs_no_cluster_to_explain_itself() -> None:
    assert lorafleet("promote", "--help", KUBECONFIG="/none").code == 0
