"""Probes and warm-ups, on fake engines: what passes, what fails, what is asked again, and that loads come first."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lorafleet.api.rollout import GoldenPrompt, Probe
from lorafleet.controller import probes
from lorafleet.controller.engineclients import EngineClients
from lorafleet.controller.probes import ProbeReconciler, most_used, shown
from lorafleet.controller.probing import Probing
from lorafleet.controller.queue import Key
from lorafleet.controller.secrets import Secrets
from lorafleet.controller.state import FleetState
from lorafleet.engines.client import session
from tests.controller.fakes import Asked, FakeKube, world_of
from tests.controller.fleets import add_adapter, engine, state_of
from tests.fake_vllm import FakeEngine, Settings, text_of

SERVED = f"python/1-{'a' * 12}"
KEY = Key("probe", "ns", "fleet/e")
COMPLETIONS = "/v1/completions"


class Ground:
    """One fleet with one fake engine that has one version."""

    def __init__(self, fake: FakeEngine, connections: aiohttp.ClientSession) -> None:
        self.fake = fake
        self.state: FleetState = state_of({"engines": {"selector": {}, "port": fake.port}})
        one = engine("e", "--enable-lora", listing={SERVED: f"/adapters/{SERVED}"})
        one.facts = one.facts.__class__(**{**vars(one.facts), "pod_ip": fake.host, "port": fake.port})
        one.bases = (("base", "/models/base"),)
        one.warm = True
        self.engine = self.state.engines["e"] = one
        self.world, self.asked = world_of(self.state)
        self.reconcile = ProbeReconciler(self.world, EngineClients(Secrets(FakeKube()), connections))
        fake.adapters[SERVED] = f"/adapters/{SERVED}"

    async def ask(self, probe: Probe | None = None) -> float | None:
        self.world.want_probe(self.state, SERVED, probe or Probe())
        return await self.reconcile(KEY)

    @property
    def probing(self) -> Probing:
        return self.state.probes[SERVED]

    def result(self) -> tuple[int, str]:
        found = self.state.probed({SERVED}, self.probing.probe)[SERVED]
        return found.passed, found.failures[0].message if found.failures else ""


@pytest.fixture
async def one() -> AsyncIterator[Ground]:
    async with (
        FakeEngine(Settings(check_files=False, model="/models/base", served_names=["base"])) as fake,
        session() as connections,
    ):
        yield Ground(fake, connections)


def keys(asked: Asked) -> set[tuple[str, str]]:
    return {(key.kind, key.name) for key in asked.keys}


async def test_an_answer_is_enough_without_golden_prompts(one: Ground) -> None:
    assert await one.ask() is None
    assert one.result() == (1, "")
    assert ("probe", "fleet/e") in keys(one.asked)


async def test_the_adapter_hears_of_it(one: Ground) -> None:
    one.world._fleet_of[("ns", "python")] = "fleet"
    await one.ask()
    assert ("adapter", "python") in keys(one.asked)


async def test_what_was_answered_is_not_asked_again_but_another_probe_is(one: Ground) -> None:
    for _ in range(3):
        await one.ask()
    assert one.fake.counts[COMPLETIONS] == 1
    await one.ask(Probe(timeout="5s"))
    assert one.fake.counts[COMPLETIONS] == 2


async def test_a_container_that_started_again_is_asked_again(one: Ground) -> None:
    await one.ask()
    one.engine.facts = one.engine.facts.__class__(**{**vars(one.engine.facts), "restart_count": 1})
    assert one.result() == (0, "")
    await one.ask()
    assert (one.result(), one.fake.counts[COMPLETIONS]) == ((1, ""), 2)


@pytest.mark.parametrize(
    ("golden", "reply", "but"),
    [
        ({"expect": "forty"}, "fifty", "which does not contain 'forty'"),
        ({"expect": "forty"}, "it is forty two", ""),
        ({"differs_from_base": True}, text_of("base", 16), "as the base model base does"),
        ({"differs_from_base": True}, None, ""),
    ],
)
async def test_golden_prompts_say_what_a_version_must_answer(
    one: Ground, golden: dict[str, Any], reply: str | None, but: str
) -> None:
    one.fake.settings.replies = {SERVED: {"text": reply}}
    await one.ask(Probe(prompts=(GoldenPrompt(prompt="How\nmany?", **golden),)))
    passed, message = one.result()
    assert (passed, but in message) == (0 if but else 1, True)
    assert "\n" not in message
    if but:
        assert "engine e answers 'How many?'" in message and SERVED in message and "spec.probe" in message
        assert one.state.probed({SERVED}, one.probing.probe)[SERVED].failures[0].final


async def test_an_error_is_neither_until_it_came_again_and_again(one: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "FIRST_AGAIN", 0.0)
    one.fake.settings.replies = {SERVED: {"status": 500}}
    for _ in range(probes.TRIES - 1):
        assert await one.ask() is not None
        assert one.result() == (0, "")
    await one.ask()
    passed, message = one.result()
    assert (passed, "5 times in a row" in message, "500" in message) == (0, True, True)


async def test_an_engine_that_is_away_says_nothing_of_a_version(one: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "FIRST_AGAIN", 0.0)
    one.fake.stop()
    for _ in range(probes.TRIES + 1):
        assert await one.ask() is not None
    assert one.result() == (0, "")
    assert ("engine", "fleet/e") in keys(one.asked), "it is listed again, and found to be away"


async def test_an_engine_that_forgot_the_version_is_listed_again_and_nothing_counts(one: Ground) -> None:
    del one.fake.adapters[SERVED]
    assert await one.ask() is not None
    assert one.result() == (0, "")
    assert one.engine.listed_at == float("-inf")
    assert ("engine", "fleet/e") in keys(one.asked)


async def test_nothing_is_asked_while_loads_run_or_of_what_is_not_loaded(one: Ground) -> None:
    one.engine.loading = True
    assert await one.ask() is None
    one.engine.loading = False
    one.engine.listing = {}
    assert await one.ask() is None
    assert one.fake.counts[COMPLETIONS] == 0


async def test_loads_that_begin_meanwhile_stop_the_questions(one: Ground) -> None:
    other = f"python/2-{'b' * 12}"
    assert one.engine.listing is not None
    one.engine.listing[other] = one.fake.adapters[other] = f"/adapters/{other}"
    one.fake.settings.replies = {SERVED: {"seconds": 0.05}}
    one.world.want_probe(one.state, other, Probe())
    one.world.want_probe(one.state, SERVED, Probe())
    one.state.probes = {SERVED: one.state.probes[SERVED], other: one.state.probes[other]}
    asking = asyncio.create_task(one.ask())
    while not one.fake.counts[COMPLETIONS]:
        await asyncio.sleep(0)
    one.engine.loading = True
    await asking
    assert one.fake.counts[COMPLETIONS] == 1


async def test_an_engine_that_started_answers_by_the_most_used_adapters_once(one: Ground) -> None:
    for name, count, last in (("a", 5, "2026-01-01"), ("b", 9, "2025-01-01"), ("c", 5, "2026-02-02"), ("d", 0, "")):
        served = f"{name}/1-{'a' * 12}"
        version = {"name": "1", "phase": "Loaded", "servedName": served}
        version["statistics"] = {"requestCount": count, "lastUsed": last}  # type: ignore[assignment]
        traffic = [{"version": "1", "servedName": served, "weight": 100}]
        add_adapter(one.state, name, {"versions": [version], "traffic": traffic}, uid=name)
        assert one.engine.listing is not None
        one.engine.listing[served] = one.fake.adapters[served] = f"/adapters/{served}"
    assert [served[0] for served in most_used(one.state, 2)] == ["b", "c"]
    one.engine.warm = False
    await one.reconcile(KEY)
    await one.reconcile(KEY)
    assert [event.model[0] for event in one.fake.events] == ["b", "c", "a"]


async def test_a_warm_up_that_fails_stops_nothing(one: Ground) -> None:
    version = {"name": "1", "phase": "Loaded", "servedName": SERVED, "statistics": {"requestCount": 1}}
    traffic = [{"version": "1", "servedName": SERVED, "weight": 100}]
    add_adapter(one.state, "python", {"versions": [version], "traffic": traffic})
    one.fake.settings.replies = {SERVED: {"status": 500}}
    one.engine.warm = False
    assert await one.reconcile(KEY) is None
    assert one.engine.warm and not one.engine.refused


def test_what_is_shown_of_answers_is_one_short_line() -> None:
    assert shown("a\n\x00b" * 100) == shown("a  b" * 100)
    assert len(shown("word " * 100)) == probes.SHOWN
