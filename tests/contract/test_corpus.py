"""The corpus offered straight to a real vLLM: what we publish loads there, and what it would have done with the rest.

The table of ``docs/corpus.md`` is the record; with ``CORPUS=write`` it is written, else compared. Adapters are offered
one at a time, each under a name of its own, with one completion for those that load.
"""

import asyncio
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from lorafleet.artifacts.check import Expectations, check
from lorafleet.artifacts.errors import ArtifactError
from tests.contract.conftest import MAX_RANK, REAL, REPOSITORY, SERVED, Target, say
from tests.corpus.base import Base, Case
from tests.corpus.cases import CASES

pytestmark = pytest.mark.skipif(not REAL, reason="only a real vLLM knows")

DOCUMENT = REPOSITORY / "docs" / "corpus.md"
RECORDED = ("0.27.1", "0.32.0")
START, END = "<!-- table -->", "<!-- end of table -->"
_LONG = 110
_AROUND = re.compile(
    r"^Call to add_lora method failed: Worker failed with error '(.*)', please check the stack trace.*$"
)


def base_of(target: Target) -> Base:
    """The corpus's base model under the name that the server was started with; its sizes are the tiny model's."""
    base = replace(Base(), name=target.model)
    config = json.loads((Path(target.model) / "config.json").read_text())
    assert config == {**config, **base.config}
    return base


def ours(case: Case, folder: Path, base: Base) -> str:
    """What lorafleet says to the folder in a fleet of this base model."""
    fleet = Expectations((base.name,), MAX_RANK, case.engine, base_config=base.config)
    try:
        info = check(folder, fleet)
    except ArtifactError as error:
        return str(error.reason)
    return ", ".join(["published", *(reason for reason, _ in info.notices)])


async def theirs(target: Target, http: httpx.AsyncClient, name: str, base_says: tuple[int, str]) -> str:
    """What vLLM does with the adapter of that name."""
    load = {"lora_name": name, "lora_path": str(target.serving / name)}
    try:
        answer = await http.post(f"{target.url}/v1/load_lora_adapter", json=load)
        if answer.status_code != 200:
            return f"{answer.status_code}: {_short(answer.json()['error']['message'], load)}"
        says = await say(http, target, name)
        await http.post(f"{target.url}/v1/unload_lora_adapter", json={"lora_name": name})
    except (httpx.HTTPError, TimeoutError) as error:
        return f"**the engine does not answer any more** ({type(error).__name__})"
    if says[0] != 200:
        return f"**loads; a request fails with {says[0]}**: {_short(says[1], load)}"
    return "loads; answers as the base model" if says == base_says else "loads; answers"


def _short(message: str, load: dict[str, str]) -> str:
    """One line for a table, without what is different each time."""
    text = message.replace(load["lora_path"], "…").replace(load["lora_name"], "x").replace("|", "/")
    text = _AROUND.sub(r"\1", " ".join(text.split())).replace("`", "'")
    text = re.sub(r"\{[^{}]*\}", "{…}", text)
    text = re.sub(r"(invalid offset for tensor) '[^']*'", r"\1 '…'", text)  # which one is first changes from run to run
    text = re.sub(r"\\x00|[^ -~…]", "?", text)
    return f"`{text if len(text) <= _LONG else text[:_LONG] + '…'}`".replace("``", "no message")


async def _alive(target: Target, http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get(f"{target.url}/health")).status_code == 200
    except httpx.HTTPError:
        return False


async def test_what_is_published_loads_and_the_rest_is_on_record(target: Target, http: httpx.AsyncClient) -> None:
    base = base_of(target)
    base_says = await say(http, target, SERVED[0])
    rows = []
    for number, case in enumerate(case for case in CASES if case.offer):
        name = f"corpus-{number}/1.0.0-3f2a9c1d04be"
        folder = target.serving / name
        folder.mkdir(parents=True)
        case.make(folder, base)
        we_say, they_do = ours(case, folder, base), await theirs(target, http, name, base_says)
        if not await _alive(target, http):
            they_do = f"**the engine dies**: {they_do}"
            await asyncio.to_thread(target.process.restart)
        rows.append((case, we_say, they_do))
    supported = [row for row in rows if row[0].reason is None and needs(row[0]) <= target.version]
    assert [(str(case), they_do) for case, _, they_do in supported if not they_do.startswith("loads; answers")] == []
    without_effect = [str(case) for case, _, they_do in supported if they_do == "loads; answers as the base model"]
    assert without_effect == [str(case) for case, *_ in supported if case.notice]
    # A link is judged by where its source is; here it is in no claim.
    assert all(we_say.startswith("published") is (case.reason is None) for case, we_say, _ in rows if not linked(case))
    version = ".".join(map(str, target.version))
    if version in RECORDED:
        _record(version, {str(case): (_said(case), they_do) for case, _, they_do in rows})


def needs(case: Case) -> tuple[int, ...]:
    """The vLLM that a good adapter needs."""
    return (0, 32) if "_pattern" in case.name else (0, 27, 1)


def linked(case: Case) -> bool:
    """Whether the adapter has a link in its folder."""
    return "link" in case.name


def _said(case: Case) -> str:
    if case.reason is not None:
        return f"`{case.reason}`"
    return f"published, `{case.notice}`" if case.notice else "published"


def _record(version: str, rows: dict[str, tuple[str, str]]) -> None:
    """Write this version's column of the table, or compare with it."""
    text = DOCUMENT.read_text()
    before, rest = text.split(START)
    written, after = rest.split(END)
    cells = {row[0]: row[2:] for row in map(_cells, written.splitlines()) if len(row) == 2 + len(RECORDED)}
    table = []
    for name, (said, they_do) in rows.items():
        others = dict(zip(RECORDED, cells.get(name, [""] * len(RECORDED)), strict=True))
        table.append([name, said, *(others | {version: they_do}).values()])
    bad = [row for row in table if not row[1].startswith("published")]
    loaded = [sum("loads" in row[2 + column] for row in bad) for column in range(len(RECORDED))]
    counts = " and ".join(f"vLLM {one} loads {count}" for one, count in zip(RECORDED, loaded, strict=True))
    head = ["adapter", "lorafleet", *(f"vLLM {one} by itself" for one in RECORDED)]
    lines = ["", f"Of these {len(bad)} bad adapters, {counts} by itself.", ""]
    lines += [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *table)]
    new = "\n".join([*lines, ""])
    if os.environ.get("CORPUS") == "write":
        DOCUMENT.write_text(f"{before}{START}{new}{END}{after}")
    else:
        assert written.splitlines() == new.splitlines(), "run CORPUS=write make contract"


def _cells(line: str) -> list[str]:
    return line.removeprefix("| ").removesuffix(" |").split(" | ")
