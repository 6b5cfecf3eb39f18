"""The commands that ask a cluster, against a real API server; statuses are written by the test."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorafleet.api.names import ACTION_ANNOTATION, ADAPTER_PLURAL, API_VERSION
from lorafleet.kube import path
from tests.cli import objects
from tests.cli.commands import Answer, lorafleet
from tests.cli.standin import kubeconfig, operator, put, write
from tests.harness.plane import MERGE, Plane, until


class Shell:
    """A user's shell: a kubeconfig whose context has the test's namespace."""

    def __init__(self, plane: Plane, namespace: str, folder: Path) -> None:
        self.plane = plane
        self.namespace = namespace
        self.folder = folder
        self.file = kubeconfig(plane, folder, namespace)

    async def __call__(self, *words: str, **environment: str) -> Answer:
        return await asyncio.to_thread(lorafleet, *words, **{"KUBECONFIG": self.file, **environment})

    async def document(self, *words: str) -> Any:
        answer = await self(*words, "-o", "json")
        assert answer.err == ""
        return json.loads(answer.out)

    async def annotation(self, name: str) -> str:
        item = await self.plane.kube.get(path(API_VERSION, ADAPTER_PLURAL, self.namespace, name))
        return str((item["metadata"].get("annotations") or {}).get(ACTION_ANNOTATION, ""))


@pytest.fixture
async def shell(plane: Plane, namespace: str, tmp_path: Path) -> Shell:
    await put(plane, namespace, objects.fleet(objects.engine("vllm-0"), objects.engine("vllm-1")))
    await put(plane, namespace, objects.serving(), "sql-lora")
    await put(plane, namespace, objects.rolling(), "python-lora")
    return Shell(plane, namespace, tmp_path)


async def test_get_lists_fleets_and_adapters_of_the_contexts_namespace(shell: Shell) -> None:
    answer = await shell("get")
    assert answer.code == 0, answer.err
    fleets, adapters = answer.out.split("\n\n")
    assert re.search(r"^hi-moe +2/2 +4 +1 +2 +3\.0 GiB +True +\d+s$", fleets, re.MULTILINE)
    assert re.search(
        r"^python-lora +hi-moe +1\.1\.0 +1\.2\.0 +1\.1\.0 75% · 1\.2\.0 25% +2/3 Progressing +2/2 +0\.39%"
        r" +RolloutProgressing +\d+s$",
        adapters,
        re.MULTILINE,
    )


async def test_a_kubeconfig_that_is_named_is_asked_and_named_in_the_next_moves(shell: Shell, tmp_path: Path) -> None:
    where = ["--kubeconfig", shell.file, "-n", shell.namespace]
    for words in (["get"], ["status", "sql-lora"], ["history", "sql-lora"], ["load-matrix", "hi-moe"]):
        answer = await shell(*words, *where, KUBECONFIG=str(tmp_path / "none"))
        assert answer.code == 0, answer.err
    explained = json.loads((await shell("explain", "python-lora", "-o", "json", *where, KUBECONFIG="")).out)
    assert explained["next"][0]["command"].endswith(f" --kubeconfig {shell.file} -n {shell.namespace}")
    assert (await shell("pause", "python-lora", "--no-wait", *where, KUBECONFIG="")).code == 0
    assert (await shell.annotation("python-lora")).startswith("pause@")


async def test_get_lists_what_is_named_in_its_order(shell: Shell) -> None:
    named = await shell.document("get", "adapters", "sql-lora", "python-lora")
    assert [one["name"] for one in named["adapters"]] == ["sql-lora", "python-lora"]
    assert "fleets" not in named
    assert [one["name"] for one in (await shell.document("get", "fleet/hi-moe"))["fleets"]] == ["hi-moe"]
    assert [one["name"] for one in (await shell.document("get", "sql-lora"))["adapters"]] == ["sql-lora"]


async def test_get_lists_all_namespaces_when_asked(shell: Shell) -> None:
    answer = await shell("get", "adapters", "-A", "-n", "elsewhere")
    assert answer.code == 0
    assert re.search(rf"^{shell.namespace} +sql-lora ", answer.out, re.MULTILINE)
    none = await shell("get", "-n", "elsewhere")
    assert (none.code, none.out) == (0, "")
    assert none.err == "there is no fleet or adapter in namespace elsewhere\n"


async def test_an_unknown_name_is_answered_with_near_ones(shell: Shell) -> None:
    for words in (["get", "adapters"], ["status"], ["explain"], ["history"], ["promote"], ["retry"], ["rollback"]):
        answer = await shell(*words, "pyton-lora")
        assert (answer.code, answer.out) == (1, "")
        where = f"no adapter pyton-lora in namespace {shell.namespace}"
        assert answer.err == f"error: {where}; did you mean python-lora?\n", words
    far = await shell("status", "fleet/x")
    assert far.err == f"error: no fleet x in namespace {shell.namespace}; there are hi-moe\n"


async def test_documents_are_of_one_schema(shell: Shell) -> None:
    for words in (
        ["get"], ["status", "sql-lora"], ["status", "fleet/hi-moe"], ["explain", "sql-lora"],
        ["explain", "fleet/hi-moe"], ["history", "sql-lora"], ["load-matrix", "hi-moe"],
        ["pause", "sql-lora", "--no-wait"],
    ):  # fmt: skip
        as_json = await shell.document(*words)
        assert as_json["schemaVersion"] == 1
        as_yaml = yaml.safe_load((await shell(*words, "-o", "yaml")).out)
        assert as_yaml.keys() == as_json.keys()


async def test_a_command_to_copy_is_whole_on_a_narrow_page(shell: Shell) -> None:
    for word in ("python-lora", "fleet/hi-moe"):
        lines = (await shell("explain", word, COLUMNS="30")).out.splitlines()
        for move in (await shell.document("explain", word))["next"]:
            assert any(f"  {move['command']}  " in line and line.endswith(move["why"]) for line in lines), lines


async def test_status_shows_a_rollout(shell: Shell) -> None:
    answer = await shell("status", "python-lora")
    assert answer.code == 0
    assert "rollout of 1.2.0  Progressing, begun 25m ago" in answer.out
    document = await shell.document("status", "python-lora")
    assert [step["weight"] for step in document["steps"]] == [5, 25, 50]
    assert document["rollout"]["analysis"]["verdict"] == "Passed"


async def test_waiting_ends_by_what_becomes_of_it(shell: Shell) -> None:
    assert (await shell("status", "sql-lora", "--wait", "--timeout", "20")).code == 0
    late = await shell("status", "python-lora", "--wait", "--timeout", "0.5")
    assert late.code == 3
    assert late.err == "error: adapter python-lora is not Ready within 0.5 s: RolloutProgressing\n"
    waiting = asyncio.create_task(shell("status", "python-lora", "--wait", "--timeout", "60"))
    await asyncio.sleep(0)
    await write(shell.plane, shell.namespace, objects.live(objects.aborted(), shell.namespace))
    ended = await waiting
    assert ended.code == 1
    assert ended.err == "error: adapter python-lora is Stalled: RolloutAborted\n"


async def test_a_condition_of_an_older_spec_ends_no_waiting(shell: Shell) -> None:
    old = objects.live(objects.serving(), shell.namespace, "sql-lora")
    for one in old["status"]["conditions"]:
        one["observedGeneration"] = 0
    await write(shell.plane, shell.namespace, old)
    assert (await shell("status", "sql-lora", "--wait", "--timeout", "0.5")).code == 3


async def test_watching_prints_a_line_for_each_change_until_interrupted(shell: Shell) -> None:
    log = shell.folder / "log"
    with log.open("w") as out:
        watch = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lorafleet", "status", "python-lora", "-w",
            stdout=out, stderr=subprocess.STDOUT, env={"KUBECONFIG": shell.file, "HOME": str(shell.folder)},
        )  # fmt: skip
    await until("the first line", lambda: "1.1.0 75% · 1.2.0 25%" in log.read_text())
    await write(shell.plane, shell.namespace, objects.live(objects.waiting(), shell.namespace))
    await until("the change", lambda: "3/3 Paused: WaitingForPromotion" in log.read_text())
    watch.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(watch.wait(), 30) == 0
    assert len(log.read_text().splitlines()) == 2


async def test_watching_on_a_terminal_redraws_the_picture(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    shown = bytearray()

    def seen(text: str) -> bool:
        with contextlib.suppress(BlockingIOError):
            shown.extend(os.read(ours, 1_000_000))
        return text in shown.decode(errors="replace")

    try:
        watch = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lorafleet", "status", "python-lora", "-w",
            stdout=theirs, stderr=theirs,
            env={"KUBECONFIG": shell.file, "HOME": str(shell.folder), "TERM": "xterm", "COLUMNS": "130", "LINES": "50"},
        )  # fmt: skip
        await until("the picture", lambda: seen("Progressing, begun 25m ago"))
        await write(shell.plane, shell.namespace, objects.live(objects.waiting(), shell.namespace))
        await until("the change", lambda: seen("Paused: WaitingForPromotion"))
        watch.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(watch.wait(), 30) == 0
    finally:
        os.close(ours)
        os.close(theirs)
    assert "\x1b[1A" in shown.decode(), "the cursor goes up to draw again"


async def test_watching_ends_when_the_object_is_deleted(shell: Shell) -> None:
    log = shell.folder / "log"
    with log.open("w") as out:
        watch = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "lorafleet", "status", "python-lora", "-w", "-o", "json",
            stdout=out, stderr=subprocess.STDOUT, env={"KUBECONFIG": shell.file, "HOME": str(shell.folder)},
        )  # fmt: skip
    await until("the first document", lambda: "\n" in log.read_text())
    await shell.plane.kube.delete(path(API_VERSION, ADAPTER_PLURAL, shell.namespace, "python-lora"))
    assert await asyncio.wait_for(watch.wait(), 30) == 1
    first, last = log.read_text().splitlines()
    assert json.loads(first)["target"] == "1.2.0"
    assert last == f"error: python-lora in namespace {shell.namespace} was deleted"


async def test_a_verb_is_handled_once_and_its_answer_printed(shell: Shell) -> None:
    async with operator(shell.plane, shell.namespace, lambda name, verb: f"{verb}: {name} is at step 3"):
        first = await shell("promote", "python-lora")
        assert first.code == 0, first.err
        assert re.search(r"^python-lora +promote +done +promote: python-lora is at step 3$", first.out, re.MULTILINE)
        value = await shell.annotation("python-lora")
        assert re.fullmatch(r"promote@\d{8}T\d{6}\.\d{6}Z-[0-9a-f]{8}", value)
        assert (await shell("promote", "python-lora")).code == 0
        assert await shell.annotation("python-lora") != value


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (["promote", "--full"], "promote-full"),
        (["pause"], "pause"),
        (["resume"], "resume"),
        (["abort"], "abort"),
        (["retry"], "retry"),
        (["rollback"], "rollback"),
        (["rollback", "--to", "1.1.0"], "rollback:1.1.0"),
    ],
)
async def test_each_verb_is_the_annotation_of_its_name(shell: Shell, words: list[str], action: str) -> None:
    answer = await shell(words[0], "python-lora", *words[1:], "--no-wait")
    assert answer.code == 0, answer.err
    assert (await shell.annotation("python-lora")).rpartition("@")[0] == action


async def test_a_refused_verb_is_exit_code_1_and_says_why(shell: Shell) -> None:
    async with operator(shell.plane, shell.namespace, lambda name, verb: f"{verb} was refused: no rollout"):
        answer = await shell("promote", "python-lora")
    assert answer.code == 1
    assert "promote was refused: no rollout" in answer.out


async def test_several_adapters_are_asked_by_name_or_label(shell: Shell) -> None:
    where = path(API_VERSION, ADAPTER_PLURAL, shell.namespace)
    for name in ("python-lora", "sql-lora"):
        labels = {"metadata": {"labels": {"team": "search"}}}
        await shell.plane.kube.request("PATCH", f"{where}/{name}", body=labels, content_type=MERGE)
    async with operator(shell.plane, shell.namespace, lambda name, verb: f"{name} is paused"):
        named = await shell("pause", "sql-lora", "python-lora", "-o", "json")
        labelled = await shell("pause", "-l", "team=search")
    results = json.loads(named.out)["results"]
    assert [(one["adapter"], one["message"]) for one in results] == [
        ("sql-lora", "sql-lora is paused"), ("python-lora", "python-lora is paused"),
    ]  # fmt: skip
    assert labelled.code == 0
    assert len(labelled.out.splitlines()) == 3
    nobody = await shell("pause", "-l", "team=nobody")
    assert (nobody.code, nobody.err) == (
        1, f"error: no adapter in namespace {shell.namespace} has the labels team=nobody\n",
    )  # fmt: skip
    assert (await shell("pause")).code == 2
    assert (await shell("pause", "sql-lora", "-l", "team=search")).code == 2


async def test_a_verb_without_an_operator_times_out(shell: Shell) -> None:
    answer = await shell("pause", "python-lora", "--timeout", "0.5")
    assert answer.code == 3
    assert "unanswered" in answer.out


async def test_a_verb_that_another_takes_the_place_of_says_so(shell: Shell) -> None:
    asked = asyncio.create_task(shell("promote", "python-lora", "--timeout", "60"))
    await until("promote", lambda: _is(shell, "promote"))
    body = {"metadata": {"annotations": {ACTION_ANNOTATION: "abort@somebody"}}}
    where = path(API_VERSION, ADAPTER_PLURAL, shell.namespace, "python-lora")
    await shell.plane.kube.request("PATCH", where, body=body, content_type=MERGE)
    answer = await asked
    assert answer.code == 1
    assert "the annotation was changed to abort before it was handled" in " ".join(answer.out.split())


async def _is(shell: Shell, verb: str) -> bool:
    return (await shell.annotation("python-lora")).startswith(verb)


async def test_rollback_to_a_version_that_is_no_entry_asks_nobody(shell: Shell) -> None:
    answer = await shell("rollback", "python-lora", "--to", "9.9")
    assert answer.code == 1
    assert answer.err == "error: adapter python-lora has no version 9.9; spec.versions has 1.1.0, 1.2.0\n"
    assert await shell.annotation("python-lora") == ""


async def test_the_matrix_is_of_the_fleets_own_adapters(shell: Shell) -> None:
    other = objects.serving()
    other["spec"]["fleet"] = "other"
    await put(shell.plane, shell.namespace, other, "other-lora")
    found = await shell.document("load-matrix", "hi-moe")
    assert {(one["adapter"], one["version"]) for one in found["versions"]} == {
        ("python-lora", "1.1.0"), ("python-lora", "1.2.0"), ("sql-lora", "1.1.0"),
    }  # fmt: skip
    assert (await shell("load-matrix", "hi-moe")).out.count("●") == 7


async def test_missing_rights_are_named_by_verb_and_resource(shell: Shell) -> None:
    where = path("v1", "serviceaccounts", shell.namespace, "default", "token")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = (await shell.plane.kube.create(where, body))["status"]["token"]
    file = kubeconfig(shell.plane, shell.folder, shell.namespace, token=token)
    everywhere = await shell("get", "-A", KUBECONFIG=file)
    assert "you may not list specialistfleets.lorafleet.dev in all namespaces" in everywhere.err
    assert "ask its administrator for a ClusterRole" in everywhere.err
    for words, verb in ((["get"], "list"), (["status", "sql-lora"], "get"), (["status", "sql-lora", "-w"], "get")):
        answer = await shell(*words, KUBECONFIG=file)
        assert answer.code == 2
        resource = "specialistfleets" if words == ["get"] else "loraadapters"
        assert f"you may not {verb} {resource}.lorafleet.dev in namespace {shell.namespace}" in answer.err
        assert token not in answer.err
    file = kubeconfig(shell.plane, shell.folder, shell.namespace, token="stale")
    answer = await shell("get", KUBECONFIG=file)
    assert answer.code == 2
    assert "does not accept these credentials; log in again" in answer.err


async def test_a_user_who_may_read_and_not_write_is_told_so(shell: Shell) -> None:
    rules = [{"apiGroups": ["lorafleet.dev"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {"name": "reader"}, "rules": rules}
    await shell.plane.kube.create(path(f"{group}/v1", "roles", shell.namespace), role)
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": shell.namespace}],
    }
    await shell.plane.kube.create(path(f"{group}/v1", "rolebindings", shell.namespace), binding)
    where = path("v1", "serviceaccounts", shell.namespace, "default", "token")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token = (await shell.plane.kube.create(where, body))["status"]["token"]
    file = kubeconfig(shell.plane, shell.folder, shell.namespace, token=token)
    assert (await shell("get", KUBECONFIG=file)).code == 0
    answer = await shell("abort", "python-lora", KUBECONFIG=file)
    assert answer.code == 2
    assert f"you may not patch loraadapters.lorafleet.dev in namespace {shell.namespace}" in answer.err
