"""Sums over routers: restarts, replicas, windows, and how much is remembered."""

from datetime import UTC, datetime, timedelta

import pytest

from lorafleet.api.adapter import LoRAAdapterStatus
from lorafleet.api.rolloutstatus import VersionStatistics
from lorafleet.controller.tally import KEPT, Seen, Tally, counts, thinned
from lorafleet.rollout.evidence import Counts, Record

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVED = f"python/1-{'a' * 12}"
KNOWN = {SERVED: None}


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def sums(requests: int, errors: int = 0, refused: int = 0) -> Counts:
    ok = requests - errors - refused
    return Counts(requests, errors, refused, ok, 10.0 * ok, ok, 5.0 * ok, 3 * ok, 2 * ok)


class Routers:
    """A tally that is fed by rounds."""

    def __init__(self, known: dict[str, VersionStatistics | None] | None = None, fine: bool = True) -> None:
        self.tally = Tally()
        self.known = known or dict(KNOWN)
        self.fine = frozenset({"python"}) if fine else frozenset()

    def round(self, seconds: float, *, new: bool = True, **routers: Counts) -> None:
        for instance, found in routers.items():
            self.tally.take(instance, {SERVED: found}, self.known, at(seconds), new=new, fine=self.fine)
        self.tally.ended(frozenset(routers), frozenset(self.known), at(seconds))

    @property
    def total(self) -> int:
        return self.tally.seen[SERVED].total.requests


def test_a_router_s_answer_is_read() -> None:
    raw = {"ok": 7, "client": 2, "server": 1, "latencyCount": 8, "latencyMsSum": 80.5, "promptTokens": 5}
    assert counts(raw) == Counts(10, 1, 2, 8, 80.5, 0, 0.0, 5, 0)


def test_replicas_are_added_up() -> None:
    one = Routers()
    one.round(0, a=sums(5), b=sums(7))
    one.round(5, a=sums(6), b=sums(7))
    assert one.total == 13


def test_a_router_that_starts_again_takes_nothing_away() -> None:
    one = Routers()
    one.round(0, a=sums(5))
    one.round(5, again=sums(2))
    assert one.total == 7
    assert one.tally.last.keys() == {"again"}


def test_what_an_older_router_counted_before_us_is_in_the_status_already() -> None:
    before = VersionStatistics(request_count=100, average_latency_ms=20.0, last_used="2025-01-01T00:00:00Z")
    one = Routers({SERVED: before})
    one.round(0, new=False, a=sums(90))
    one.round(5, a=sums(93))
    assert one.total == 103
    assert one.tally.seen[SERVED].record.since(at(0)).requests == 3


def test_requests_since_a_moment_are_counted_whatever_restarts_meanwhile() -> None:
    one = Routers()
    for second in range(10):
        one.round(second, a=sums(second), **{f"r{second // 4}": sums(second % 4)})
    assert one.tally.seen[SERVED].record.since(at(4)).requests == 5 + 3 + 1


def test_a_name_that_is_new_begins_at_nothing_when_the_routers_were_last_asked() -> None:
    one = Routers()
    one.round(0, a=Counts())
    one.round(10, a=sums(4))
    assert one.tally.seen[SERVED].record.moments == ((at(0), Counts()), (at(10), sums(4)))


def test_names_that_no_status_names_are_not_kept() -> None:
    one = Routers()
    one.tally.take("a", {"other/1-x": sums(1)}, one.known, NOW, new=True)
    assert one.tally.seen == {} and one.tally.changed == set()
    one.round(0, a=sums(1))
    one.known = {}
    one.round(1, a=sums(1))
    assert one.tally.seen == {}


def test_the_success_rate_is_of_ten_minutes_and_the_client_s_own_faults_are_in_neither() -> None:
    one = Routers()
    one.round(0, a=Counts())
    one.round(1, a=sums(10, errors=10))
    one.round(700, a=sums(30, errors=11, refused=10))
    found = one.tally.seen[SERVED].statistics(at(701))
    assert (found.request_count, found.success_rate) == (30, 0.9)
    assert one.tally.seen[SERVED].statistics(at(2000)).success_rate is None


def test_a_window_that_passed_is_said_once() -> None:
    one = Routers()
    one.round(0, a=sums(1))
    one.tally.changed.clear()
    one.round(300, a=sums(1))
    assert one.tally.changed == set()
    one.round(700, a=sums(1))
    assert one.tally.changed == {"python"}
    one.tally.changed.clear()
    one.round(1400, a=sums(1))
    assert one.tally.changed == set()


def test_the_average_follows_slowly_and_goes_on_from_the_status() -> None:
    seen = Seen.of(VersionStatistics(average_latency_ms=20.0))
    seen.add(Counts(requests=10, latency_count=10, latency_ms=1000.0), at(0), at(5), True)
    assert seen.latency is not None and 20.0 < seen.latency < 30.0
    fresh = Seen()
    fresh.add(Counts(requests=10, latency_count=10, latency_ms=1000.0), at(0), at(5), True)
    assert fresh.latency == 100.0


@pytest.mark.parametrize(("fine", "every", "most"), [(True, 1, 370), (False, 30, 16)])
def test_memory_is_bounded_and_reaches_back(fine: bool, every: int, most: int) -> None:
    moments: tuple[tuple[datetime, Counts], ...] = ()
    for second in range(0, 4 * 3600, every):
        moments = thinned((*moments, (at(second), sums(second))), at(second), fine)
        assert len(moments) <= most
    end = moments[-1][0]
    assert (end - moments[0][0]).total_seconds() >= KEPT
    record = Record(moments)
    for back in (1, 10, 60, 300, 900):
        found = record.since(end - timedelta(seconds=back)).requests
        assert back <= found <= back + (max(back * 0.07, 2) if fine else 180)


def test_a_status_says_what_is_known() -> None:
    one = Routers()
    one.round(0, a=sums(5))
    version = {"name": "1", "phase": "Loaded", "servedName": SERVED}
    other = {"name": "2", "phase": "Pending"}
    status = LoRAAdapterStatus.model_validate({"versions": [version, other]})
    shown = one.tally.shown(status, at(1)).versions
    assert shown[0].statistics is not None and shown[0].statistics.prompt_tokens == 15
    assert shown[1].statistics is None


def test_it_is_known_that_nothing_more_was_counted() -> None:
    one = Routers()
    one.round(0, a=sums(1))
    for second in (5, 10, 15):
        one.tally.ended(frozenset({"a"}), frozenset(KNOWN), at(second), one.fine)
    record = one.tally.seen[SERVED].record
    assert [moment for moment, _ in record.moments][-2:] == [at(0), at(15)]
    assert (record.since(at(0)).requests, record.since(at(7)).requests) == (0, 0)
    one.round(20, a=sums(4))
    assert record.moments[-1][0] == at(15) and one.tally.seen[SERVED].record.since(at(12)).requests == 3
