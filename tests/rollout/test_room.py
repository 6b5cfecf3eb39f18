"""Places on the engines: who gets the last one, who keeps his, and that nobody waits for ever."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from lorafleet.api.names import served_name
from lorafleet.rollout.placing import ROOM_AGAIN
from lorafleet.rollout.room import Room
from lorafleet.rollout.wanted import NOTHING, wanted
from tests.rollout.worlds import MOUNT, Cluster, digest_of, spec

MINE = served_name("adapter", "1", digest_of("1"))


def others(count: int) -> frozenset[str]:
    return frozenset(f"other-{number}/1-{'0' * 12}" for number in range(count))


def test_a_version_without_a_place_waits_and_says_the_numbers() -> None:
    cluster = Cluster(spec("1"), room=Room(8, others(8), waiting=3, ahead=0))
    cluster.settle()
    assert cluster.engines == {"e0": {}, "e1": {}}
    assert cluster.condition("Reconciling") == ("True", "NoRoom")
    message = next(c.message for c in cluster.status.conditions if c.type == "Ready")
    assert "engines hold 8 adapters (--max-cpu-loras 8) and 3 more wait" in message
    assert "raise --max-cpu-loras" in message
    plan = cluster.reconcile()
    assert plan.look_again is not None
    assert (plan.look_again - cluster.now).total_seconds() <= ROOM_AGAIN


def test_the_last_place_is_given() -> None:
    cluster = Cluster(spec("1"), room=Room(8, others(7)))
    cluster.settle()
    assert cluster.serving() == {"1": 100}


def test_older_adapters_come_first() -> None:
    cluster = Cluster(spec("1"), room=Room(8, others(7), waiting=2, ahead=1))
    cluster.settle()
    assert cluster.condition("Ready") == ("False", "NoRoom")
    message = next(c.message for c in cluster.status.conditions if c.type == "Ready")
    assert "older adapters" in message


def test_a_place_is_said_when_it_is_given_and_only_then() -> None:
    cluster = Cluster(spec("1"), room=Room(8, others(7)))
    cluster.reconcile()
    cluster.sync()
    assert cluster.reconcile().places == (MINE,)
    assert cluster.reconcile().places == ()


def test_a_switch_needs_two_places_and_never_drops_what_serves() -> None:
    cluster = Cluster(spec("1"), room=Room(1, frozenset()))
    cluster.settle()
    cluster.room = Room(1, frozenset({MINE}))
    cluster.spec = spec("1", "2")
    cluster.settle()
    assert cluster.serving() == {"1": 100}
    assert cluster.condition("Ready") == ("False", "NoRoom")
    assert cluster.condition("Available") == ("True", "Serving")
    message = next(c.message for c in cluster.status.conditions if c.type == "Ready")
    assert "the old and the new version at once" in message
    cluster.room = Room(2, frozenset({MINE}))
    cluster.settle()
    assert cluster.serving() == {"2": 100}


def test_what_serves_keeps_its_place_when_there_are_fewer() -> None:
    cluster = Cluster(spec("1"), room=Room(8, others(7)))
    cluster.settle()
    cluster.room = Room(2, others(7) | {MINE})
    cluster.settle()
    assert cluster.serving() == {"1": 100}


def test_going_back_within_the_drain_time_needs_no_place() -> None:
    cluster = Cluster(spec("1"))
    cluster.settle()
    cluster.spec = spec("1", "2")
    cluster.settle()
    second = served_name("adapter", "2", digest_of("2"))
    cluster.room = Room(2, frozenset({MINE, second}))
    cluster.spec = spec("1", "2", active="1")
    cluster.settle()
    assert cluster.serving() == {"1": 100}


def test_a_version_that_is_not_wanted_any_more_does_not_wait_any_more() -> None:
    cluster = Cluster(spec("1"), room=Room(8, others(7)))
    cluster.settle()
    cluster.room = Room(8, others(7) | {MINE})
    cluster.spec = spec("1", "2")
    cluster.settle()
    assert wanted(cluster.status, MOUNT).waits
    cluster.spec = spec("1", "2", active="1")
    cluster.settle()
    assert not wanted(cluster.status, MOUNT).waits
    assert all(version.reason is None for version in cluster.status.versions)


def test_nothing_waits_where_no_limit_is_known() -> None:
    cluster = Cluster(spec("1"), room=None)
    cluster.settle()
    assert cluster.serving() == {"1": 100}


@dataclass
class Crowd:
    """Many adapters of one fleet, the first the oldest, that decide one after another."""

    limit: int
    adapters: list[Cluster] = field(default_factory=list)

    def join(self) -> None:
        self.adapters.append(Cluster(spec("1"), name=f"a{len(self.adapters)}"))

    def want(self, number: int) -> tuple[frozenset[str], frozenset[str]]:
        found = wanted(self.adapters[number].status, MOUNT) if not self.adapters[number].released else NOTHING
        listed = {served for listing in self.adapters[number].engines.values() for served in listing}
        return frozenset(found.load) | found.keep | listed, found.waits

    def held(self) -> frozenset[str]:
        return frozenset().union(*(self.want(number)[0] for number in range(len(self.adapters))))

    def act(self, number: int) -> None:
        one = self.adapters[number]
        waits = [other for other in range(len(self.adapters)) if other != number and self.want(other)[1]]
        ahead = sum(other < number for other in waits)
        one.room = Room(self.limit, self.held(), len(waits) + 1, ahead)
        one.reconcile()
        one.sync()
        one.load()

    def settle(self) -> None:
        for _ in range(6):
            for number in range(len(self.adapters)):
                self.act(number)
                self.adapters[number].wait(31)


steps = st.lists(st.tuples(st.sampled_from(["join", "act", "switch", "delete"]), st.integers(0, 7)), max_size=40)


@given(limit=st.integers(2, 6), history=steps)
def test_places_are_never_given_twice_and_the_oldest_get_them(limit: int, history: list[tuple[str, int]]) -> None:
    crowd = Crowd(limit)
    crowd.join()
    for what, number in history:
        number %= len(crowd.adapters)
        one = crowd.adapters[number]
        if what == "join":
            crowd.join()
        elif what == "switch":
            one.spec = spec("1", "2", active="2" if one.spec.active == "1" else "1")
        elif what == "delete":
            one.deleting_since = one.deleting_since or one.now
        else:
            one.wait(10)
            crowd.act(number)
        assert len(crowd.held()) <= limit, "engines are asked to hold more than they can"
    crowd.settle()
    alive = [one for one in crowd.adapters if one.deleting_since is None]
    lacking = [one for one in alive if one.serving() != {one.spec.active: 100}]
    if lacking:
        assert len(crowd.held()) == limit, "somebody waits while there is a place"
