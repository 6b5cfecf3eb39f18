"""Random histories of edits, verbs, failures, losses, metrics and time never break the invariants."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lorafleet.api.adapter import LoRAAdapterStatus, VersionPhase
from lorafleet.api.reasons import Reason
from lorafleet.rollout.observed import Failed, Observed, QueryResult
from tests.rollout.worlds import Cluster, fleet_view, spec

NAMES = ("1", "2", "3", "4")
names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True)
engines = st.sampled_from(["e0", "e1", "e2"])
versions = st.sampled_from(NAMES)
steps = st.lists(
    st.fixed_dictionaries(
        {"weight": st.sampled_from([0, 5, 50, 100])}, optional={"pause": st.sampled_from(["10s", "5m", {}])}
    ),
    max_size=3,
)
analyses = st.none() | st.fixed_dictionaries(
    {"interval": st.sampled_from(["10s", "1m"]), "minRequests": st.just(10), "maxErrorRate": st.just(0.05)},
    optional={
        "failureLimit": st.sampled_from([1, 2]),
        "maxLatencyRatio": st.just(1.5),
        "queries": st.just([{"name": "q", "query": "x", "max": 1}]),
    },
)
rollouts = st.none() | st.fixed_dictionaries(
    {"steps": steps, "keepLoaded": st.sampled_from([0, 0, 1, 2])},
    optional={
        "analysis": analyses.filter(bool),
        "progressDeadline": st.sampled_from(["1m", "1h"]),
        "onDeadline": st.sampled_from(["Abort", "Pause"]),
    },
)
verbs = st.sampled_from(
    ["promote", "promote-full", "pause", "resume", "abort", "retry", "rollback", "rollback:1", "rollback:2", "nonsense"]
)


class AdapterLife(RuleBasedStateMachine):
    """One adapter; the cluster asserts by itself that nothing unpublished is loaded and nothing read is removed.

    ``barred``: entries that were taken back and that nobody has retried since.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster(spec("1"), engines={"e0": {}, "e1": {}, "e2": {}})
        self.tokens = 0
        self.rollout: object = None
        self.split: list[dict[str, object]] = []
        self.names: tuple[list[str], str] = (["1"], "1")
        self.barred: set[tuple[str, str]] = set()
        self.things_settle()
        self.names = (list(NAMES), "1")
        self.change_rollout({"steps": [{"weight": 5, "pause": "10s"}, {"weight": 50, "pause": {}}]})

    def write(self) -> None:
        known, active = self.names
        more: dict[str, object] = {"rollout": self.rollout} if self.rollout else {}
        if self.split and all(share["version"] in known for share in self.split):
            more["traffic"] = self.split
        self.cluster.spec = spec(*known, active=active, **more)
        self.cluster.generation += 1

    @rule(versions=names, data=st.data())
    def edit(self, versions: list[str], data: st.DataObject) -> None:
        self.names = (versions, data.draw(st.sampled_from(versions)))
        self.write()

    @rule(data=st.data())
    def change_active_version(self, data: st.DataObject) -> None:
        self.names = (list(NAMES), data.draw(versions))
        self.write()

    @rule(rollout=rollouts)
    def change_rollout(self, rollout: object) -> None:
        self.rollout = rollout
        self.write()

    @rule(shares=st.none() | st.lists(versions, min_size=2, max_size=2, unique=True))
    def change_split(self, shares: list[str] | None) -> None:
        self.split = [{"version": name, "weight": weight} for name, weight in zip(shares or [], (30, 70), strict=False)]
        self.write()

    @rule()
    def suspend_or_resume(self) -> None:
        told = self.cluster.spec
        self.cluster.spec = told.model_copy(update={"suspend": not told.suspend})

    @rule(verb=verbs)
    def annotate(self, verb: str) -> None:
        self.tokens += 1
        self.cluster.action = f"{verb}@{self.tokens}"

    @rule(version=versions)
    def a_version_is_released(self, version: str) -> None:
        self.names = (list(NAMES), version)
        self.write()
        self.things_settle()

    @rule(verb=verbs)
    def a_person_acts(self, verb: str) -> None:
        self.annotate(verb)
        self.things_settle()

    @rule(version=versions, retry=st.booleans())
    def breaks(self, version: str, retry: bool) -> None:
        self.cluster.bad[version] = Failed(Reason.SYNC_FAILED, "broken", retry)

    @rule(version=versions, final=st.none() | st.booleans())
    def answers_wrongly(self, version: str, final: bool | None) -> None:
        if final is None:
            self.cluster.mute.add(version)
        else:
            self.cluster.wrong[version] = final

    @rule()
    def mends(self) -> None:
        self.cluster.bad.clear()
        self.cluster.mute.clear()
        self.cluster.wrong.clear()

    @rule(
        version=versions,
        ok=st.sampled_from([0, 100]),
        errors=st.sampled_from([0, 3, 100]),
        ms=st.sampled_from([9, 900]),
    )
    def clients_ask(self, version: str, ok: int, errors: int, ms: int) -> None:
        self.cluster.requests(version, ok, errors, refused=7, ms=float(ms))

    @rule(value=st.sampled_from([None, 0.5, 2.0]))
    def prometheus_answers(self, value: float | None) -> None:
        self.cluster.values["q"] = QueryResult(self.cluster.now, value)

    @rule()
    def routers_go_and_come(self) -> None:
        self.cluster.routers = 1 - self.cluster.routers

    @rule()
    def turns_go_and_come(self) -> None:
        self.cluster.turn = "" if self.cluster.turn else "others come first"

    @rule(engine=engines)
    def restarts(self, engine: str) -> None:
        self.cluster.engines[engine].clear()

    @rule(engine=engines)
    def goes_down(self, engine: str) -> None:
        self.cluster.down.add(engine)

    @rule()
    def all_up(self) -> None:
        self.cluster.down.clear()

    @rule(seconds=st.sampled_from([1, 11, 29, 61, 301, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.cluster.wait(seconds)

    @rule()
    def status_is_lost(self) -> None:
        self.cluster.status = LoRAAdapterStatus()
        self.barred.clear()

    @rule()
    def reconcile(self) -> None:
        cluster = self.cluster
        before, observed = cluster.status, cluster.observe()
        weights = cluster.serving()
        loaded = {
            version.name
            for version in before.versions
            if version.served_name
            and cluster.usable()
            and cluster.loads(version.served_name).loaded == len(cluster.usable())
        }
        plan = cluster.reconcile()
        after = plan.status
        proven = {version.served_name for version in before.versions if version.proven_at}
        for name, weight in cluster.serving().items():
            stable = name in (before.stable_version, after.stable_version)
            assert weight <= weights.get(name, 0) or name in loaded or (stable and name in weights), "not loaded"
            served = cluster.version(name).served_name
            if name not in weights and served not in proven and before.versions:
                probed = observed.probes.get(served or "")
                assert probed and probed.passed >= len(cluster.usable()), "a first request before the probe"
        self._what_is_paused_stays(before, after)
        self._stable_moves_only_by_promotion_or_rollback(before, after)
        self._a_lost_status_proves_nothing(before, after, observed)
        self._what_was_taken_back_stays_so(weights)
        if cluster.action and not cluster.spec.suspend:
            assert after.last_handled_action == cluster.action
            assert after.action_message
            if cluster.action != before.last_handled_action and cluster.action.startswith("abort") and before.rollout:
                self._is_aborted(before.rollout.version, weights)
        assert len(after.history) <= 20
        self._a_status_does_not_tick()

    def _is_aborted(self, name: str, weights: dict[str, int]) -> None:
        """By a person, who wants the weight to go in the very same status."""
        status = self.cluster.status
        known = {entry.name: entry.fingerprint for entry in self.cluster.spec.versions}
        if name in known:
            assert (name, known[name]) in {(one.version, one.entry_hash) for one in status.aborted}
        if status.stable_version in weights and not self.cluster.spec.traffic and self.cluster.fleet:
            assert name not in self.cluster.serving()

    def _what_is_paused_stays(self, before: LoRAAdapterStatus, after: LoRAAdapterStatus) -> None:
        was, now = before.rollout, after.rollout
        if was and now and was.paused and now.paused and was.version == now.version:
            assert now.step in (was.step, 0), "a paused rollout goes on"

    def _a_status_does_not_tick(self) -> None:
        """Half way to what is due next, a look changes nothing."""
        cluster = self.cluster
        before = cluster.status
        plan = cluster.reconcile()
        if plan.status == before and not plan.remove:
            assert plan.look_again is None or plan.look_again > cluster.now, (
                "a look that changes nothing, at once again"
            )
        if plan.look_again is not None and plan.look_again > cluster.now and not plan.publish:
            cluster.now += (plan.look_again - cluster.now) / 2
            assert cluster.reconcile().status == plan.status, "a status ticks"

    def _stable_moves_only_by_promotion_or_rollback(self, before: LoRAAdapterStatus, after: LoRAAdapterStatus) -> None:
        if before.stable_version is None or after.stable_version in (before.stable_version, None):
            return
        what = [entry for entry in after.history if entry not in before.history]
        told = {(entry.what, entry.version) for entry in what}
        moved = {
            ("Promoted", after.stable_version),
            ("RolledBack", after.stable_version),
            ("Served", after.stable_version),
        }
        assert told & moved or ("RolledBack", before.stable_version) in told, told

    def _a_lost_status_proves_nothing(
        self, before: LoRAAdapterStatus, after: LoRAAdapterStatus, observed: Observed
    ) -> None:
        """What is stable once it was made anew, without a promotion, was so before."""
        known = {version.name: version.served_name for version in after.versions}
        stable = known.get(after.stable_version or "")
        if stable is None:
            return
        made_anew = not before.versions and not before.stable_version and observed.listed
        noted = observed.noted.removeprefix("adapter/").rpartition("-")[0]
        if made_anew and noted in {entry.name for entry in self.cluster.spec.versions}:
            assert stable in self.cluster.proven, "taken for stable, and never promoted"

    def _what_was_taken_back_stays_so(self, weights: dict[str, int]) -> None:
        cluster = self.cluster
        now = {(one.version, one.entry_hash) for one in cluster.status.aborted}
        retried = cluster.action.startswith("retry")
        entries = {entry.name: entry.fingerprint for entry in cluster.spec.versions}
        if not retried:
            assert self.barred <= now, "only retry, or another entry, takes it from the list"
        for name, fingerprint in now:
            if entries.get(name) == fingerprint and name in cluster.serving():
                assert name in weights, "an aborted version returned by itself"
                assert cluster.serving()[name] <= weights[name]
        stable = cluster.status.stable_version
        assert (stable, entries.get(stable or "")) not in now, "what was taken back is not stable"
        self.barred = now

    @rule()
    def sync(self) -> None:
        if self.cluster.last is not None:
            self.cluster.sync()

    @rule(engine=st.one_of(st.none(), engines))
    def load(self, engine: str | None) -> None:
        self.cluster.load(engine)

    @rule()
    def things_settle(self) -> None:
        for _ in range(4):
            self.reconcile()
            self.cluster.sync()
            self.cluster.load()

    @rule()
    def fleet_goes_and_comes(self) -> None:
        self.cluster.fleet = None if self.cluster.fleet else fleet_view()

    @rule(versions=st.lists(versions, max_size=2))
    def another_claim(self, versions: list[str]) -> None:
        """The copies of some sources have other bytes there."""
        for version in versions:
            self.cluster.digests[version] = "sha256:" + f"{len(self.cluster.volume):064x}"[::-1]
        self.cluster.fleet = fleet_view(claim_name=f"claim-{len(self.cluster.volume)}")

    @rule()
    def everything_settles(self) -> None:
        cluster = self.cluster
        cluster.fleet = fleet_view()
        cluster.down.clear()
        self.mends()
        cluster.turn = ""
        cluster.spec = cluster.spec.model_copy(update={"suspend": False, "rollout": None, "traffic": ()})
        self.rollout, self.split = None, []
        cluster.reconcile()
        if cluster.status.rollout and cluster.status.rollout.paused:
            self.annotate("resume")
        for number in range(4):
            cluster.fleet = fleet_view(expectations=str(cluster.now))
            cluster.settle()
            cluster.wait(700)
            if number == 1 and cluster.status.aborted:
                self.annotate("retry")
        cluster.settle()
        active = cluster.spec.active
        assert cluster.serving() == {active: 100}, "whatever happened, the active version serves in the end"
        assert cluster.condition("Ready") == ("True", "Serving")
        assert cluster.status.stable_version == active
        assert cluster.status.rollout is None
        assert {v.name for v in cluster.status.versions} == {v.name for v in cluster.spec.versions}
        for listing in cluster.engines.values():
            assert len(listing) == 1, "nothing else stays loaded"
        self.barred = {(one.version, one.entry_hash) for one in cluster.status.aborted}

    @invariant()
    def weights_sum_to_100_or_nothing_serves(self) -> None:
        assert sum(self.cluster.serving().values()) in (0, 100)

    @invariant()
    def traffic_names_only_published_versions(self) -> None:
        for target in self.cluster.status.traffic:
            assert target.served_name in self.cluster.volume
            assert target.weight > 0

    @invariant()
    def a_carrying_version_is_wanted_on_engines(self) -> None:
        phases = {v.name: v.phase for v in self.cluster.status.versions}
        for version in self.cluster.serving():
            assert phases[version] in (VersionPhase.LOADED, VersionPhase.LOADING)

    @invariant()
    def ready_means_that_the_target_serves_all_or_the_split_is_in_force(self) -> None:
        cluster = self.cluster
        ready = [one for one in cluster.status.conditions if one.type == "Ready" and one.status == "True"]
        if ready and ready[0].observed_generation == cluster.generation and ready[0].reason != Reason.SUSPENDED:
            split = {share.version: share.weight for share in cluster.spec.traffic}
            assert cluster.serving() == (split or {cluster.status.active_version: 100})
            assert cluster.status.rollout is None


TestAdapterLife = AdapterLife.TestCase
TestAdapterLife.settings = settings(max_examples=200, stateful_step_count=50)
