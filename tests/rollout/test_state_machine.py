"""Random histories of edits, failures, losses and time never break the invariants."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lorafleet.api.adapter import VersionPhase
from lorafleet.api.reasons import Reason
from lorafleet.rollout.observed import Failed
from tests.rollout.worlds import Cluster, fleet_view, spec

NAMES = ("1", "2", "3", "4")
names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)
engines = st.sampled_from(["e0", "e1", "e2"])


class AdapterLife(RuleBasedStateMachine):
    """One adapter; the cluster asserts by itself that nothing unpublished is loaded and nothing read is removed."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(spec("1"), engines={"e0": {}, "e1": {}, "e2": {}})
        self.proven: str | None = None

    @rule(versions=names, data=st.data())
    def edit(self, versions: list[str], data: st.DataObject) -> None:
        self.cluster.spec = spec(*versions, active=data.draw(st.sampled_from(versions)))
        self.cluster.generation += 1

    @rule(version=st.sampled_from(NAMES), retry=st.booleans())
    def breaks(self, version: str, retry: bool) -> None:
        self.cluster.bad[version] = Failed(Reason.SYNC_FAILED, "broken", retry)

    @rule()
    def mends(self) -> None:
        self.cluster.bad.clear()

    @rule(engine=engines)
    def restarts(self, engine: str) -> None:
        self.cluster.engines[engine].clear()

    @rule(engine=engines)
    def goes_down(self, engine: str) -> None:
        self.cluster.down.add(engine)

    @rule()
    def all_up(self) -> None:
        self.cluster.down.clear()

    @rule(seconds=st.sampled_from([1, 29, 31, 700]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.wait(seconds)

    @rule()
    def reconcile(self) -> None:
        before = self.cluster.serving()
        loaded = {
            version.name
            for version in self.cluster.status.versions
            if version.served_name
            and self.cluster.usable()
            and self.cluster.loads(version.served_name).loaded == len(self.cluster.usable())
        }
        self.cluster.reconcile()
        for version in self.cluster.serving():
            assert version in before or version in loaded, "weight on a version that is not loaded everywhere"

    @rule()
    def sync(self) -> None:
        if self.cluster.last is not None:
            self.cluster.sync()

    @rule(engine=st.one_of(st.none(), engines))
    def load(self, engine: str | None) -> None:
        self.cluster.load(engine)

    @rule()
    def fleet_goes_and_comes(self) -> None:
        self.cluster.fleet = None if self.cluster.fleet else fleet_view()

    @rule()
    def everything_settles(self) -> None:
        cluster = self.cluster
        cluster.fleet = fleet_view()
        cluster.down.clear()
        cluster.bad.clear()
        for _ in range(4):
            cluster.fleet = fleet_view(expectations=str(cluster.now))
            cluster.settle()
            cluster.wait(700)
        cluster.settle()
        active = cluster.spec.active
        assert cluster.serving() == {active: 100}, "whatever happened, the active version serves in the end"
        assert {v.name for v in cluster.status.versions} == {v.name for v in cluster.spec.versions}
        for listing in cluster.engines.values():
            assert len(listing) == 1, "nothing else stays loaded"

    @invariant()
    def weights_sum_to_100_or_nothing_serves(self) -> None:
        assert sum(self.cluster.serving().values()) in (0, 100)

    @invariant()
    def traffic_names_only_published_versions(self) -> None:
        for target in self.cluster.status.traffic:
            assert target.served_name in self.cluster.volume

    @invariant()
    def a_carrying_version_is_wanted_on_engines(self) -> None:
        phases = {v.name: v.phase for v in self.cluster.status.versions}
        for version in self.cluster.serving():
            assert phases[version] in (VersionPhase.LOADED, VersionPhase.LOADING)


TestAdapterLife = AdapterLife.TestCase
TestAdapterLife.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
