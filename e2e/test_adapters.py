"""What a person does with adapters: apply, update, get it wrong, delete."""

from pathlib import Path
from typing import Any

import pytest

from e2e.values import BASE
from e2e.world import NAMESPACE, World, until


def trained(world: World, *names: str, **options: Any) -> None:
    """Adapters by peft, each with a seed of its own."""
    world.train([{"name": name, "seed": sum(map(ord, name)), **options} for name in names])


def test_an_applied_adapter_answers_on_every_engine(world: World, base_answer: str) -> None:
    trained(world, "python-1")
    world.adapter("python", "1")
    served = world.wait_serving("python", "1")
    answers = {world.ask(engine, served) for engine in world.engines()}
    assert len(answers) == 1, "the same bytes answer the same everywhere"
    assert answers != {base_answer}, "the adapter changes what the model says"
    assert world.ask(world.engines()[0], BASE) == base_answer
    folder = world.volume_path() / "serving" / served
    names = {file.name for file in folder.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "lorafleet.json"} <= names
    described = world.kubectl("describe", "loraadapter", "python")
    assert "Serving" in described.partition("Events:")[2]


def test_a_new_version_takes_over_and_the_old_one_is_unloaded(world: World) -> None:
    trained(world, "python-1", "python-2")
    world.adapter("python", "1")
    first = world.wait_serving("python", "1")
    engine = world.engines()[0]
    before = world.ask(engine, first)
    world.adapter("python", "1", "2")
    second = world.wait_serving("python", "2")
    assert second != first
    assert world.ask(engine, second) != before
    until("the old version is unloaded", lambda: all(first not in world.listed(e) for e in world.engines()), 30)
    assert [v["phase"] for v in world.status("python")["versions"]] == ["Published", "Loaded"]


def test_going_back_is_a_change_of_active_version(world: World) -> None:
    trained(world, "python-1", "python-2")
    world.adapter("python", "1", "2", activeVersion="1")
    first = world.wait_serving("python", "1")
    before = world.ask(world.engines()[0], first)
    world.adapter("python", "1", "2", activeVersion="2")
    world.wait_serving("python", "2")
    world.adapter("python", "1", "2", activeVersion="1")
    assert world.wait_serving("python", "1") == first
    assert world.ask(world.engines()[0], first) == before


def broken_safetensors(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickle_only(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def nothing(_: Path) -> None:
    pass


BAD: dict[str, tuple[dict[str, Any], Any, str, str]] = {
    "wrong base model": ({"base_name": "somebody/else-7b"}, nothing, "BaseModelMismatch", "somebody/else-7b"),
    "rank too high": ({"r": 32}, nothing, "RankTooHigh", "32"),
    "broken safetensors": ({}, broken_safetensors, "WeightsInvalid", "adapter_model.safetensors"),
    "pickle only": ({}, pickle_only, "PickleRefused", "adapter_model.bin"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_adapter_stalls_with_the_next_move_and_nothing_else_moves(world: World, case: str) -> None:
    options, damage, reason, words = BAD[case]
    trained(world, "good-1")
    world.adapter("good", "1")
    served = world.wait_serving("good", "1")
    before = [(world.listed(engine), world.load_calls(engine)) for engine in world.engines()]
    answer = world.ask(world.engines()[0], served)
    trained(world, "bad-1", **options)
    damage(world.volume_path() / "incoming" / "bad-1")
    world.adapter("bad", "1")
    message = world.wait("bad", "Stalled", reason)["message"]
    assert words in message
    assert "bad" in message or "version 1" in message
    assert not (world.volume_path() / "serving" / "bad").exists()
    assert [(world.listed(engine), world.load_calls(engine)) for engine in world.engines()] == before
    assert world.ask(world.engines()[0], served) == answer


def test_a_source_that_is_missing_is_said_and_found_when_it_comes(world: World) -> None:
    world.adapter("late", "1")
    world.train([])
    until("it says so", lambda: "SourceNotFound" in world.kubectl("get", "loraadapter", "late", "-o", "json"), 60)
    trained(world, "late-1")
    world.wait_serving("late", "1", deadline=180)


def test_deletion_unloads_everywhere_and_removes_the_bytes(world: World) -> None:
    trained(world, "python-1")
    world.adapter("python", "1")
    served = world.wait_serving("python", "1")
    world.kubectl("delete", "loraadapter", "python", "--timeout=60s")
    assert all(served not in world.listed(engine) for engine in world.engines())
    assert not (world.volume_path() / "serving" / "python").exists()
    with pytest.raises(AssertionError, match="404"):
        world.ask(world.engines()[0], served)


def test_many_adapters_at_once(world: World) -> None:
    names = [f"many{number}" for number in range(12)]
    trained(world, *(f"{name}-1" for name in names))
    for name in names:
        world.adapter(name, "1")
    served = [world.wait_serving(name, "1") for name in names]
    ids = [world.status(name)["versions"][0]["id"] for name in names]
    assert len(set(ids)) == len(ids)
    answers = {world.ask(world.engines()[0], one) for one in served}
    assert len(answers) == len(served), "every adapter answers as itself"
    for engine in world.engines():
        assert set(world.load_calls(engine)) == {200}


def test_published_folders_cannot_be_changed_by_engines(world: World) -> None:
    trained(world, "python-1")
    world.adapter("python", "1")
    served = world.wait_serving("python", "1")
    with pytest.raises(AssertionError, match="Read-only file system"):
        world.kubectl("-n", NAMESPACE, "exec", world.engines()[0], "-c", "vllm", "--", "touch", f"/adapters/{served}/x")
