"""The picture of a router: what changes it, what does not, and that it never has holes."""

import pytest

from lorafleet.router.picture import Picture
from lorafleet.router.table import Target
from tests.router.objects import adapter, engine, fleet, pod, served, traffic, version


class Told:
    """Counts changes."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def picture(told: Told) -> Picture:
    one = Picture("fleet", told)
    one.put_fleet(fleet(engine("vllm-0")))
    one.put_adapter(adapter("sql", traffic=traffic("sql", v1=100), at=5))
    one.listed_adapters({"sql"}, "7")
    one.put_pod(pod("vllm-0"))
    one.listed_pods({"vllm-0"}, "7")
    told.count = 0
    return one


def test_picture_waits_for_each_of_its_three_lists() -> None:
    one = Picture("fleet", lambda: None)
    assert one.waits_for == ("fleet", "adapters", "pods")
    one.put_fleet(fleet())
    one.listed_pods(set(), "1")
    assert one.waits_for == ("adapters",)
    one.listed_adapters(set(), "1")
    assert one.waits_for == ()


def test_new_weights_change_the_table(picture: Picture, told: Told) -> None:
    picture.put_adapter(adapter("sql", traffic=traffic("sql", v1=90, v2=10), at=8))
    assert told.count == 1
    assert picture.table().routes["sql"].targets[1] == Target(served("sql", "v2"), 10)


def test_a_status_that_routes_alike_changes_nothing(picture: Picture, told: Told) -> None:
    one = adapter("sql", traffic=traffic("sql", v1=100), at=8)
    one["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    picture.put_adapter(one)
    assert (told.count, picture.version) == (0, 8)


def test_a_table_does_not_change_after_it_was_read(picture: Picture) -> None:
    table = picture.table()
    picture.drop_adapter(adapter("sql"))
    picture.drop_pod("vllm-0")
    assert set(table.routes) == {"sql"} and set(table.engines) == {"vllm-0"}


def test_routes_that_did_not_change_are_the_same_objects(picture: Picture) -> None:
    """A renderer may keep what it made of each."""
    before = picture.table().routes["sql"]
    picture.put_adapter(adapter("other", traffic=traffic("other", v1=100)))
    assert picture.table().routes["sql"] is before


def test_unreadable_adapter_is_routed_as_before(picture: Picture, told: Told) -> None:
    picture.put_adapter(adapter("sql", traffic=traffic("sql", v1=40)))
    assert told.count == 0
    assert picture.table().routes["sql"].targets == (Target(served("sql", "v1"), 100),)


@pytest.mark.parametrize("how", ["deleted", "another fleet", "not listed"])
def test_adapter_that_is_gone_is_not_routed(picture: Picture, told: Told, how: str) -> None:
    if how == "deleted":
        picture.drop_adapter(adapter("sql"))
    elif how == "another fleet":
        picture.put_adapter(adapter("sql", traffic=traffic("sql", v1=100), fleet="other"))
    else:
        picture.listed_adapters(set(), "9")
    assert told.count == 1
    assert picture.table().routes == {}


def test_deleted_adapter_is_routed_until_its_traffic_ends(picture: Picture) -> None:
    one = adapter("sql", version("sql", "v1"), traffic=traffic("sql", v1=100), at=8)
    one["metadata"]["deletionTimestamp"] = "2026-11-26T00:00:00Z"
    picture.put_adapter(one)
    assert "sql" in picture.table().routes
    one["status"]["traffic"] = []
    picture.put_adapter(one)
    assert "sql" not in picture.table().routes


def test_adapters_of_other_fleets_are_nothing_to_us(picture: Picture, told: Told) -> None:
    picture.put_adapter(adapter("x", version("x", "v1"), fleet="other", traffic=traffic("x", v1=100)))
    assert told.count == 0 and set(picture.table().routes) == {"sql"}


def test_restarted_engine_gets_no_adapters_until_the_fleet_says_so(picture: Picture) -> None:
    picture.put_pod(pod("vllm-0", restarts=1))
    assert picture.table().engines["vllm-0"].adapters is False
    picture.put_fleet(fleet(engine("vllm-0", instance="uid-vllm-0/containerd://vllm-0-1/1")))
    assert picture.table().engines["vllm-0"].adapters is True


@pytest.mark.parametrize("how", ["deleted", "unready", "ended", "not listed"])
def test_engine_that_is_gone_gets_nothing(picture: Picture, told: Told, how: str) -> None:
    if how == "deleted":
        picture.drop_pod("vllm-0")
    elif how == "unready":
        picture.put_pod(pod("vllm-0", ready=False))
    elif how == "ended":
        picture.put_pod(pod("vllm-0", phase="Failed"))
    else:
        picture.listed_pods(set(), "9")
    assert told.count == 1
    assert picture.table().engines == {}


def test_base_model_keeps_its_names_while_no_engine_is_there(picture: Picture) -> None:
    picture.drop_pod("vllm-0")
    assert picture.table().base_names == ("tiny",)


def test_deleted_fleet_serves_while_its_pods_last(picture: Picture, told: Told) -> None:
    picture.drop_fleet()
    assert told.count == 0
    assert picture.fleet_gone and set(picture.table().engines) == {"vllm-0"}
    picture.drop_pod("vllm-0")
    assert picture.table().engines == {}


def test_fleet_that_cannot_be_read_is_taken_as_before(picture: Picture, told: Told) -> None:
    picture.put_fleet(fleet() | {"spec": {}})
    assert told.count == 0 and picture.fleet and picture.fleet.port == 8000


def test_version_of_the_picture_is_the_newest_seen(picture: Picture) -> None:
    assert picture.version == 7
    picture.drop_adapter(adapter("sql", at=12))
    picture.put_adapter(adapter("late", at=3))
    assert picture.version == 12
