"""The keeper of Envoy's files: when it writes, what is in force, and that failures leave the last table."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from lorafleet.router import keeper as keepers
from lorafleet.router.admin import Admin, AdminError
from lorafleet.router.keeper import Keeper
from lorafleet.router.picture import Picture
from lorafleet.router.table import RoutingTable
from tests.harness.plane import until
from tests.router.objects import adapter, fleet, traffic


class FakeEnvoy(Admin):
    """Takes what is in the folder, or does not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.takes = True
        self.away = False
        self.running: frozenset[str] = frozenset()

    async def versions(self) -> frozenset[str]:
        if self.away:
            raise AdminError("Envoy does not answer")
        if self.takes:
            self.running = frozenset(json.loads(one.read_text())["version_info"] for one in self.folder.glob("*.json"))
        return self.running

    async def rejected(self) -> int:
        return 1


class World:
    """A keeper with its picture; ``renders`` holds the weights of each table that was rendered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.envoy = FakeEnvoy(folder)
        self.picture = Picture("fleet", lambda: self.keeper.change())
        self.keeper = Keeper(self.picture, self.render, folder, self.envoy)
        self.renders: list[str] = []
        self.fault: Exception | None = None
        self.at = 10

    def render(self, table: RoutingTable) -> Mapping[str, bytes]:
        if self.fault is not None:
            raise self.fault
        text = ",".join(str(target.weight) for target in table.routes["sql"].targets)
        self.renders.append(text)
        return {"routes.json": json.dumps({"version_info": text}).encode()}

    def put(self, **weights: int) -> None:
        self.at += 1
        self.picture.put_adapter(adapter("sql", traffic=traffic("sql", **weights), at=self.at))

    def fill(self) -> None:
        self.put(v1=100)
        self.picture.listed_adapters({"sql"}, "5")
        self.picture.listed_pods(set(), "5")
        self.picture.put_fleet(fleet())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    one = World(tmp_path)
    task = asyncio.create_task(one.keeper.run())
    yield one
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def taken(world: World, text: str) -> None:
    await until(f"{text} is in force", lambda: world.keeper.applied == world.at and world.envoy.running == {text})


async def test_nothing_is_written_before_the_picture_is_whole(world: World) -> None:
    world.put(v1=100)
    world.picture.listed_adapters({"sql"}, "5")
    world.picture.listed_pods(set(), "5")
    await asyncio.sleep(0.05)
    assert world.renders == [] and not world.keeper.taken
    world.picture.put_fleet(fleet())
    await taken(world, "100")
    assert world.keeper.taken


async def test_a_change_is_written_and_counts_when_envoy_has_taken_it(world: World) -> None:
    world.fill()
    await taken(world, "100")
    before = world.keeper.applied
    world.envoy.takes = False
    world.put(v1=60, v2=40)
    await until("it is written", lambda: world.renders[-1] == "60,40")
    assert world.keeper.applied == before
    world.envoy.takes = True
    await taken(world, "60,40")


async def test_a_burst_of_changes_becomes_few_files_of_which_the_last_is_the_last(world: World) -> None:
    world.fill()
    await taken(world, "100")
    count = len(world.renders)
    for weight in range(1, 51):
        world.put(v1=100 - weight, v2=weight)
    await taken(world, "50,50")
    assert len(world.renders) - count <= 2


async def test_large_tables_follow_each_other_slowly_and_the_first_after_a_rest_comes_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.fill()
    await taken(world, "100")
    size = len((world.folder / "routes.json").read_bytes())
    monkeypatch.setattr(keepers, "PACE", size / 2.0)
    begin = time.monotonic()
    world.put(v1=60, v2=40)
    await taken(world, "60,40")
    assert time.monotonic() - begin < 1.5
    world.put(v1=50, v2=50)
    world.put(v1=40, v2=60)
    await taken(world, "40,60")
    assert time.monotonic() - begin >= 2.0
    assert world.renders == ["100", "60,40", "40,60"]


async def test_changes_are_written_while_envoy_is_away(world: World) -> None:
    """It reads the files when it is back."""
    world.envoy.away = True
    world.fill()
    await until("it is written", lambda: world.renders == ["100"])
    await until("it is said", lambda: "does not answer" in world.keeper.problem)
    world.put(v1=50, v2=50)
    await until("it is written", lambda: world.renders[-1] == "50,50")
    assert not world.keeper.taken
    world.envoy.away = False
    await taken(world, "50,50")
    assert world.keeper.problem == ""


async def test_a_change_that_matters_to_nobody_is_in_force_at_once(world: World) -> None:
    world.fill()
    await taken(world, "100")
    count = len(world.renders)
    world.put(v1=100)
    assert world.keeper.applied == world.at
    assert len(world.renders) == count


async def test_what_cannot_be_written_leaves_the_last_files_and_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "AGAIN", 0.01)
    world.fill()
    await taken(world, "100")
    world.fault = OSError(28, "No space left on device")
    world.put(v1=50, v2=50)
    await until("it is said", lambda: "No space left" in world.keeper.problem)
    assert (world.folder / "routes.json").read_text() == '{"version_info": "100"}'
    world.fault = None
    await taken(world, "50,50")
    assert world.keeper.problem == ""


async def test_a_configuration_that_envoy_does_not_take_is_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "LATE", 0.01)
    world.fill()
    await taken(world, "100")
    world.envoy.takes = False
    world.put(v1=50, v2=50)
    await until("it is said", lambda: "has not taken a configuration (1 refused" in world.keeper.problem)


async def test_a_new_process_knows_that_the_files_are_of_a_whole_picture(world: World) -> None:
    assert not Keeper(world.picture, world.render, world.folder, world.envoy).taken
    world.fill()
    await taken(world, "100")
    after = Keeper(world.picture, world.render, world.folder, world.envoy)
    assert after.taken
    assert after.applied == 0, "but not what is in force"
