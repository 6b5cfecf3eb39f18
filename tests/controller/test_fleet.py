"""What a fleet does by itself: its scrub, repairs of damaged versions, folders that nobody names."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.api.rollout import GoldenPrompt, Probe
from lorafleet.controller.adapter import AdapterReconciler, observe
from lorafleet.controller.fleet import FleetReconciler
from lorafleet.controller.pods import PodWatches
from lorafleet.controller.scrubs import Scrubs
from lorafleet.controller.settings import Settings
from lorafleet.controller.state import FleetState, Result, Scrubbed, SyncItem, SyncJob
from lorafleet.controller.status import Writer
from lorafleet.controller.world import World
from lorafleet.kube import KubeError
from lorafleet.rollout.observed import Failed, Published
from lorafleet.store.plan import VolumeReport
from tests.controller.fakes import FakeKube, measuring, world_of
from tests.controller.fleets import SPEC, add_adapter, beside, engine, hash_of, state_of

KEY = World.fleet_key(("ns", "fleet"))
DIGEST = "sha256:" + "a" * 64
SERVED = f"python/1-{'a' * 12}"
SCRUB = {"storage": {**SPEC["storage"], "scrub": {"schedule": "0 3 * * *"}}}
ENDED = "2026-01-01T00:00:00Z"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


class NoPods(PodWatches):
    """No pods are watched."""

    def __init__(self) -> None:
        self.stopped: list[object] = []

    def watch(self, state: FleetState, selector: str, port: str) -> None:
        pass

    def stop(self, ref: tuple[str, str]) -> None:
        self.stopped.append(ref)


class Ground:
    """One fleet and its reconcilers."""

    def __init__(self, state: FleetState) -> None:
        assert state.fleet
        state.fleet.finalizers = ("lorafleet.dev/cleanup",)
        for adapter in state.adapters.values():
            adapter.finalizers = ("lorafleet.dev/cleanup",)
        self.state = state
        self.kube = FakeKube()
        self.world, self.asked = world_of(state)
        for adapter in state.adapters.values():
            self.world._fleet_of[adapter.ref] = "fleet"
        writer = Writer(self.kube, self.world, "test")
        self.scrubs = Scrubs(self.kube, Settings())
        self.fleet = FleetReconciler(self.world, writer, NoPods(), self.scrubs)
        self.adapter = AdapterReconciler(self.world, writer, *measuring(self.world, self.kube))
        self.number = 0

    async def settle(self) -> None:
        await self.fleet(KEY)

    def report(
        self, results: dict[SyncItem, Result], volume: VolumeReport | None = None, claim: str = "adapters"
    ) -> None:
        """A Job that ended with these results."""
        self.number += 1
        job = SyncJob(f"job-{self.number}", tuple(results), claim=claim, results=results, open=set(results))
        self.state.sync.jobs[job.name] = job
        if volume is not None:
            self.state.sync.volume = volume

    def scrubbed(self, *damaged: str, ended: str = ENDED) -> None:
        self.report({SyncItem("", "f"): Scrubbed(1, damaged, ended)})

    @property
    def status(self) -> Any:
        assert self.state.fleet
        return self.state.fleet.status

    def condition(self, kind: str) -> tuple[str, str]:
        found = next(condition for condition in self.status.conditions if condition.type == kind)
        return found.status, found.reason

    def repairs(self) -> list[SyncItem]:
        return [item for item in self.state.sync.requests.get("", ()) if item.repair]


def served_status(state: FleetState) -> dict[str, Any]:
    version = {
        "name": "1",
        "phase": "Loaded",
        "servedName": SERVED,
        "digest": DIGEST,
        "entryHash": hash_of(state, "1"),
        "claimName": "adapters",
    }
    traffic = [{"version": "1", "servedName": SERVED, "weight": 100}]
    return {"activeVersion": "1", "stableVersion": "1", "versions": [version], "traffic": traffic}


def ground(spec: dict[str, Any] | None = None) -> Ground:
    state = state_of(spec)
    add_adapter(state, "python", served_status(state))
    state.engines["e"] = engine("e", "--enable-lora", "--max-loras", "2", listing={SERVED: f"/adapters/{SERVED}"})
    return Ground(state)


async def test_the_scrub_is_applied_once() -> None:
    one = ground(SCRUB)
    await one.settle()
    await one.settle()
    ((where, body),) = [found for found in one.kube.applied if "cronjobs" in found[0]]
    assert where.endswith("/namespaces/ns/cronjobs/lorafleet-scrub-fleet")
    assert body["spec"]["schedule"] == "0 3 * * *"


async def test_a_fleet_without_a_scrub_has_none_left() -> None:
    one = ground()
    await one.settle()
    await one.settle()
    assert one.kube.deleted == ["/apis/batch/v1/namespaces/ns/cronjobs/lorafleet-scrub-fleet"]


async def test_a_schedule_that_the_api_server_refuses_is_said_and_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = ground(SCRUB)
    apply = one.kube.apply

    async def picky(where: str, body: dict[str, Any]) -> dict[str, Any]:
        if "cronjobs" in where:
            raise KubeError(422, "Invalid", "spec.schedule: Invalid value")
        return await apply(where, body)

    monkeypatch.setattr(one.kube, "apply", picky)
    await one.settle()
    assert one.condition("Checked") == ("False", "InvalidSpec")
    assert one.condition("Ready") == ("True", "EnginesHealthy")


async def test_damage_is_said_and_the_bytes_are_asked_for_again() -> None:
    one = ground()
    one.scrubbed(SERVED)
    await one.settle()
    assert [found.served_name for found in one.status.storage.damaged] == [SERVED]
    assert (one.status.storage.last_scrub, one.status.storage.scrubbed) == (ENDED, 1)
    assert one.condition("Checked") == ("False", "FilesDamaged")
    (item,) = one.repairs()
    assert (item.adapter, item.version, item.served, item.uid) == ("python", "1", SERVED, "f")
    assert World.adapter_key(("ns", "python")) in one.asked.keys
    observed, _ = observe(one.state, one.state.adapters["python"], NOW)
    assert "being fetched again" in observed.damage[SERVED]


async def test_damage_is_over_when_the_repair_has_succeeded() -> None:
    one = ground()
    one.scrubbed(SERVED)
    await one.settle()
    (item,) = one.repairs()
    one.report({item: Published(1, DIGEST, 8, ("q_proj",), 10)})
    await one.settle()
    assert one.status.storage.damaged == ()
    assert one.condition("Checked")[0] == "True"
    assert one.repairs() == []
    assert one.status.pending_removals == (), "what was repaired is no stray"


async def test_a_repair_that_fails_is_said_and_tried_again_later() -> None:
    one = ground()
    one.scrubbed(SERVED)
    await one.settle()
    (item,) = one.repairs()
    one.report({item: Failed(Reason.SOURCE_NOT_FOUND, "the folder is gone", True)})
    await one.settle()
    assert one.repairs() == [], "not at once"
    assert [found.served_name for found in one.status.storage.damaged] == [SERVED]
    observed, _ = observe(one.state, one.state.adapters["python"], NOW)
    assert "the folder is gone" in observed.damage[SERVED]


async def test_an_old_scrub_says_nothing_new() -> None:
    one = ground()
    one.scrubbed(ended="2026-01-02T00:00:00Z")
    await one.settle()
    one.scrubbed(SERVED, ended=ENDED)
    await one.settle()
    assert one.status.storage.damaged == ()


async def test_damage_of_what_is_retired_is_forgotten() -> None:
    one = ground()
    one.scrubbed(SERVED, f"gone/1-{'b' * 12}")
    await one.settle()
    assert [found.served_name for found in one.status.storage.damaged] == [SERVED]


async def test_what_jobs_saw_of_the_volume_is_in_the_status_and_stays() -> None:
    one = ground()
    one.report({}, VolumeReport(used_bytes=5, free_bytes=6, sharing="copy"))
    await one.settle()
    assert (one.status.storage.used_bytes, one.status.storage.free_bytes) == (5, 6)
    await one.settle()
    assert one.status.storage.sharing == "copy"
    message = next(c.message for c in one.status.conditions if c.type == "Checked")
    assert "neither link nor clone" in message


STRAY = f"sql/9-{'c' * 12}"


async def test_a_folder_that_nobody_names_is_removed_by_the_usual_way() -> None:
    one = ground()
    one.report({}, VolumeReport(strays=(STRAY, SERVED, "../../etc", "no-version")))
    await one.settle()
    assert [removal.served_name for removal in one.status.pending_removals] == [STRAY]


async def test_a_folder_that_an_adapter_may_come_back_with_is_no_stray() -> None:
    one = ground()
    add_adapter(one.state, "sql", uid="s")
    coming = f"sql/1-{'c' * 12}"
    one.report({}, VolumeReport(strays=(coming,)))
    await one.settle()
    assert one.status.pending_removals == ()


async def test_a_folder_of_another_fleet_on_the_claim_is_no_stray() -> None:
    one = ground()
    other = FleetState(("other", "fleet"))
    one.world.fleets[other.ref] = other
    add_adapter(other, "sql", {"versions": [{"name": "9", "phase": "Loaded", "servedName": STRAY}]})
    one.report({}, VolumeReport(strays=(STRAY,)))
    await one.settle()
    assert one.status.pending_removals == ()


@pytest.mark.parametrize(("claim", "removed"), [("adapters", []), ("theirs", [STRAY])])
async def test_bytes_that_outlived_an_adapter_stay_while_one_of_another_fleet_on_the_claim_has_them(
    claim: str, removed: list[str]
) -> None:
    """A fleet of an adapter never changes, so whoever moves one deletes it here and creates it there."""
    one = ground()
    one.report({}, VolumeReport(strays=(STRAY,)))
    await one.settle()
    other = beside({"storage": {"claimName": claim, "mountPath": "/adapters"}})
    add_adapter(other, "sql", {"versions": [{"name": "9", "phase": "Loaded", "servedName": STRAY, "digest": DIGEST}]})
    one.world.fleets[other.ref] = other
    await one.settle()
    assert [item.served for item in one.state.sync.requests.get("", ())] == removed


async def test_bytes_that_outlived_an_adapter_stay_while_an_engine_of_another_fleet_on_the_claim_reads_them() -> None:
    one = ground()
    other = beside()
    other.engines["o"] = engine("o", listing={STRAY: f"/adapters/{STRAY}"})
    one.world.fleets[other.ref] = other
    one.report({}, VolumeReport(strays=(STRAY,)))
    await one.settle()
    assert one.state.sync.requests.get("", ()) == ()
    other.engines["o"].listing = {}
    await one.settle()
    assert [item.served for item in one.state.sync.requests[""]] == [STRAY]


async def test_nothing_is_a_stray_while_a_spec_cannot_be_read() -> None:
    one = ground()
    add_adapter(one.state, "sql", uid="s")
    one.state.adapters["sql"].spec = None
    one.report({}, VolumeReport(strays=(f"mist/1-{'c' * 12}",)))
    await one.settle()
    assert one.status.pending_removals == ()


async def test_the_engines_memory_is_summed_up() -> None:
    one = ground()
    await one.settle()
    memory = one.status.memory
    assert (memory.max_loras, memory.max_cpu_loras, memory.wanted) == (2, 2, 1)


async def test_a_slots_bytes_come_from_the_job_that_reads_the_base_models_folder() -> None:
    one = ground({"baseModel": {"name": "base", "volume": {"claimName": "models"}}})
    one.report({}, VolumeReport(slot_bytes=100))
    await one.settle()
    assert (one.status.memory.slot_bytes, one.status.memory.preallocated_bytes) == (100, 200)
    await one.settle()
    assert one.status.memory.slot_bytes == 100
    one.state.engines["e"] = engine("e", "--enable-lora", "--max-loras", "2", "-tp", "2", listing={})
    await one.settle()
    assert one.status.memory.slot_bytes is None, "not known for other engines until the next Job"


@pytest.mark.parametrize(("words", "size"), [((), 1), (("--dtype", "float32"), 2)])
async def test_a_slots_bytes_follow_from_the_base_models_config_in_the_spec(words: tuple[str, ...], size: int) -> None:
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 3,
    }
    one = ground({"baseModel": {"name": "base", "config": config}, "capacity": {"maxLoraRank": 8}})
    one.state.engines["e"] = engine("e", "--enable-lora", "--max-loras", "2", *words, listing={})
    await one.settle()
    of_a_layer = 2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128)
    slot = size * 2 * 8 * 3 * of_a_layer
    assert (one.status.memory.slot_bytes, one.status.memory.preallocated_bytes) == (slot, 2 * slot)


async def test_two_adapters_that_decide_at_once_do_not_get_the_same_place() -> None:
    state = state_of({"capacity": {"maxCpuLoras": 1, "maxLoraRank": 16}})
    for name in ("python", "sql"):
        digest = DIGEST if name == "python" else "sha256:" + "b" * 64
        served = f"{name}/1-{digest[7:19]}"
        version = {"name": "1", "phase": "Published", "servedName": served, "digest": digest, "claimName": "adapters"}
        status = {"activeVersion": "1", "versions": [version | {"entryHash": hash_of(state, "1")}]}
        add_adapter(state, name, status, uid=name)
    state.engines["e"] = engine("e", "--enable-lora")
    one = Ground(state)
    apply = one.kube.apply
    phases: list[str] = []

    async def slow(where: str, body: dict[str, Any]) -> dict[str, Any]:
        if not phases:
            phases.append("first")
            await one.adapter(World.adapter_key(("ns", "sql")))
        return await apply(where, body)

    one.kube.apply = slow  # type: ignore[method-assign]
    await one.adapter(World.adapter_key(("ns", "python")))
    found = {name: state.adapters[name].status.versions[0].phase.value for name in ("python", "sql")}
    assert found == {"python": "Loading", "sql": "Published"}, json.dumps(found)
    assert state.places == set()
    assert state.waiting.keys() == {f"sql/1-{'b' * 12}"}


async def test_answers_to_another_probe_than_the_specs_count_for_nothing() -> None:
    one = ground()
    adapter = one.state.adapters["python"]
    assert adapter.spec
    one.world.want_probe(one.state, SERVED, adapter.spec.probe)
    one.state.probes[SERVED].of(one.state.engines["e"]).passed = True
    assert observe(one.state, adapter, NOW)[0].probes[SERVED].passed == 1
    stricter = Probe(prompts=(GoldenPrompt(prompt="def", expect="return"),))
    adapter.spec = adapter.spec.model_copy(update={"probe": stricter})
    assert observe(one.state, adapter, NOW)[0].probes == {}


async def test_what_serves_goes_on_while_the_fleets_spec_cannot_be_read() -> None:
    one = ground()
    adapter = one.state.adapters["python"]
    await one.adapter(World.adapter_key(adapter.ref))
    before = adapter.status.traffic
    assert before and one.state.fleet
    one.state.fleet.spec = None
    await one.adapter(World.adapter_key(adapter.ref))
    assert adapter.status.traffic == before


async def test_what_was_published_on_another_claim_is_published_on_this_one_too() -> None:
    """The fleet's claim was changed while the Job ran, or while its result waited for the end of a suspension."""
    one = Ground(state_of({"capacity": {"maxLoraRank": 16}}))
    key = World.adapter_key(("ns", "python"))
    await one.adapter(key)
    item = one.state.sync.requests["python"][0]
    one.report({item: Published(1, DIGEST, 8, ("q_proj",), 10)}, claim="old")
    await one.adapter(key)
    version = one.state.adapters["python"].status.versions[0]
    assert (version.digest, version.retry_at is None) == (None, False)
    one.report({item: Published(1, DIGEST, 8, ("q_proj",), 10)})
    await one.adapter(key)
    assert one.state.adapters["python"].status.versions[0].claim_name == "adapters"


async def test_whoever_waits_looks_again_when_a_place_is_free() -> None:
    state = state_of({"capacity": {"maxCpuLoras": 1}})
    served = f"sql/1-{'b' * 12}"
    add_adapter(state, "python", served_status(state))
    waiting = {"name": "1", "phase": "Published", "servedName": served, "digest": DIGEST, "reason": "NoRoom"}
    add_adapter(state, "sql", {"versions": [waiting]}, uid="s")
    one = Ground(state)
    one.world.ask_waiting(state)
    assert one.asked.keys == [], "not while there is none"
    one.world.drop_adapter(("ns", "python"), "a")
    assert World.adapter_key(("ns", "sql")) in one.asked.keys
