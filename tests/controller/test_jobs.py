"""What a sync Job is asked to do, and what it has mounted for it."""

import json
from typing import Any

import pytest

from lorafleet.api.verification import VerificationPolicy
from lorafleet.controller import jobs, manifests
from lorafleet.controller.settings import Settings
from lorafleet.controller.state import FleetState, SyncItem, Task
from lorafleet.store.plan import PLAN_ENV, PROGRESS_PORT, PublishItem, RemoveItem, ScrubItem, SyncPlan
from tests.controller.fleets import SOURCES, add_adapter, engine, hash_of, item_of, state_of

SETTINGS = Settings(sync_image="example/lorafleet:1")
KEY = {"publicKey": {"name": "trust", "key": "signer.pub"}}
SIGNED = {"verification": {"policy": "Signature", "signature": KEY}}
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def state() -> FleetState:
    return state_of()


def made(state: FleetState, *items: SyncItem) -> dict[str, Any]:
    plan, taken, mounts = jobs.plan_for(state, items, SETTINGS)
    assert state.fleet
    return manifests.job(state.fleet, "job", plan, taken, mounts, SETTINGS)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]
    return found


def plan_of(job: dict[str, Any]) -> SyncPlan:
    (env,) = pod_of(job)["containers"][0]["env"]
    assert env["name"] == PLAN_ENV
    return SyncPlan.model_validate_json(env["value"].replace("$$", "$"))


def mounts_of(job: dict[str, Any]) -> dict[str, bool]:
    mounts = pod_of(job)["containers"][0]["volumeMounts"]
    return {mount["mountPath"]: mount.get("readOnly", False) for mount in mounts}


def volume_at(job: dict[str, Any], where: str) -> dict[str, Any]:
    (name,) = [m["name"] for m in pod_of(job)["containers"][0]["volumeMounts"] if m["mountPath"] == where]
    (volume,) = [one for one in pod_of(job)["volumes"] if one["name"] == name]
    return dict(volume)


def published(plan: SyncPlan) -> PublishItem:
    (item,) = plan.items
    assert isinstance(item, PublishItem)
    return item


def test_the_plan_says_what_to_check_against(state: FleetState) -> None:
    plan = plan_of(made(state, item_of(state, "1")))
    assert plan.model == "/models/base"
    assert plan.base_models == ("base", "/models/base")
    assert plan.min_id == 42


def test_what_the_fleet_asks_of_adapters_is_in_the_plan() -> None:
    more = {
        "baseModel": {"name": "base", "config": {"hidden_size": 64}},
        "artifacts": {"pickle": "Convert", "maxSize": "1Gi"},
        "storage": {"claimName": "adapters", "mountPath": "/adapters", "quota": "10Gi"},
        "capacity": {"tensorParallelSize": 2},
        **SIGNED,
    }
    state = state_of(more)
    plan = plan_of(made(state, item_of(state, "1")))
    assert plan.base_config == {"hidden_size": 64}
    assert (plan.pickle, plan.max_bytes, plan.quota_bytes) == (True, 1024**3, 10 * 1024**3)
    assert plan.tensor_parallel_size == 2
    assert plan.policy is VerificationPolicy.SIGNATURE
    assert plan.signature is not None
    assert plan.trust_file == "/trust/signer.pub"


def test_tensor_parallelism_is_that_of_the_engines(state: FleetState) -> None:
    state.engines["e"] = engine("e", "--enable-lora", "-tp", "4")
    assert plan_of(made(state, item_of(state, "1"))).tensor_parallel_size == 4


@pytest.mark.parametrize(
    ("volume", "file"),
    [
        ({"claimName": "models", "path": "qwen"}, "/sources/models/qwen/config.json"),
        ({"claimName": "models"}, "/sources/models/config.json"),
        ({"claimName": "adapters", "path": "base/"}, "/volume/base/config.json"),
    ],
)
def test_the_base_models_folder_is_mounted_read_only(volume: dict[str, Any], file: str) -> None:
    state = state_of({"baseModel": {"name": "base", "volume": volume}})
    job = made(state, item_of(state, "1"))
    assert plan_of(job).base_config_file == file
    assert mounts_of(job).get("/sources/models", True) is True


def test_a_removal_needs_none_of_what_publishing_needs() -> None:
    state = state_of({"baseModel": {"name": "base", "volume": {"claimName": "gone"}}, **SIGNED})
    job = made(state, SyncItem("", "f", served="python/1-0123456789ab"))
    assert set(mounts_of(job)) == {"/volume", "/tmp"}
    assert isinstance(plan_of(job).items[0], RemoveItem)


def test_other_claims_are_mounted_read_only(state: FleetState) -> None:
    job = made(state, item_of(state, "2"))
    assert mounts_of(job) == {"/volume": False, "/tmp": False, "/sources/theirs": True}
    assert published(plan_of(job)).claim == "/sources/theirs"


@pytest.mark.parametrize(
    ("version", "secret"), [("hub", "hub"), ("s3", "s3.keys"), ("oci", "pull"), ("http", "headers")]
)
def test_a_sources_secret_is_a_folder_of_files_that_may_be_missing(
    state: FleetState, version: str, secret: str
) -> None:
    job = made(state, item_of(state, version))
    assert mounts_of(job)[f"/secrets/{secret}"] is True
    volume = volume_at(job, f"/secrets/{secret}")["secret"]
    assert volume == {"secretName": secret, "optional": True, "defaultMode": 0o440}
    assert published(plan_of(job)).secret == f"/secrets/{secret}"


def test_each_item_gets_its_own_secret_and_no_other(state: FleetState) -> None:
    job = made(state, *(item_of(state, version) for version in SOURCES if version != "2"))
    secrets = {item.version: item.secret for item in plan_of(job).items if isinstance(item, PublishItem)}
    assert secrets == {
        "1": None,
        "hub": "/secrets/hub",
        "s3": "/secrets/s3.keys",
        "oci": "/secrets/pull",
        "http": "/secrets/headers",
        "anonymous": None,
    }


def test_no_secret_is_in_the_environment_or_the_arguments(state: FleetState) -> None:
    job = made(state, *(item_of(state, version) for version in SOURCES))
    (container,) = pod_of(job)["containers"]
    assert container["args"] == ["sync"]
    assert [entry["name"] for entry in container["env"]] == [PLAN_ENV]
    assert not any("valueFrom" in entry for entry in container["env"])
    assert "envFrom" not in container


def test_a_trust_that_is_missing_does_not_keep_the_job_from_starting() -> None:
    state = state_of(SIGNED)
    job = made(state, item_of(state, "1"))
    assert volume_at(job, "/trust")["configMap"] == {"name": "trust", "optional": True}


def test_volumes_have_names_of_their_own(state: FleetState) -> None:
    job = made(state, *(item_of(state, version) for version in SOURCES))
    names = [volume["name"] for volume in pod_of(job)["volumes"]]
    assert len(names) == len(set(names))
    assert all(name.replace("-", "").isalnum() for name in names)


def test_versions_that_need_a_claim_of_others_say_so(state: FleetState) -> None:
    assert jobs.claims_of(state, item_of(state, "2")) == {"theirs"}
    assert jobs.claims_of(state, item_of(state, "1")) == frozenset()
    assert jobs.claims_of(state, item_of(state, "hub")) == frozenset()


def with_version(state: FleetState, version: str, **fields: Any) -> None:
    known = {"name": version, "phase": "Published", "entryHash": hash_of(state, version), **fields}
    add_adapter(state, "python", {"versions": [known]})


def test_a_pin_goes_back_into_the_plan(state: FleetState) -> None:
    with_version(state, "hub", pin="3f2a")
    assert published(plan_of(made(state, item_of(state, "hub")))).pin == "3f2a"


def test_a_pin_of_another_entry_of_the_name_does_not(state: FleetState) -> None:
    with_version(state, "hub", pin="3f2a", entryHash="another")
    assert published(plan_of(made(state, item_of(state, "hub")))).pin is None


def test_a_repair_asks_for_the_very_bytes_that_were_published(state: FleetState) -> None:
    with_version(state, "hub", pin="3f2a", digest=DIGEST, servedName="python/hub-aaaaaaaaaaaa")
    item = SyncItem(
        "python", "f", version="hub", served="python/hub-aaaaaaaaaaaa", entry=hash_of(state, "hub"), repair=True
    )
    found = published(plan_of(made(state, item)))
    assert (found.repair, found.digest, found.pin) == ("python/hub-aaaaaaaaaaaa", DIGEST, "3f2a")


def test_an_entry_that_is_gone_is_left_out(state: FleetState) -> None:
    gone = SyncItem("python", "a", version="1", entry="another")
    _, taken, _ = jobs.plan_for(state, [gone, item_of(state, "2")], Settings())
    assert taken == (item_of(state, "2"),)


def test_known_names_travel_as_short_hashes_while_they_fit(state: FleetState) -> None:
    items = [item_of(state, "1")]
    few, _, _ = jobs.plan_for(state, items, SETTINGS, ["python/1-0123456789ab"])
    assert few.known is not None
    assert [len(name) for name in few.known] == [12]
    many, _, _ = jobs.plan_for(state, items, SETTINGS, (f"a{number}/1-0123456789ab" for number in range(40_000)))
    assert many.known is None, "all or nothing: a part would make strays of the rest"
    none, _, _ = jobs.plan_for(state, items, SETTINGS)
    assert none.known is None


def test_a_plan_always_fits_the_environment() -> None:
    config = {"hidden_size": 64, "junk": ["x" * 100] * 2000}
    state = state_of({"baseModel": {"name": "base", "config": config}})
    plan, _, _ = jobs.plan_for(state, [item_of(state, version) for version in SOURCES], SETTINGS)
    assert plan.base_config is None
    assert len(jobs.dump_plan(plan)) < jobs.MAX_PLAN_BYTES


def test_a_value_with_a_dollar_reaches_the_job_as_it_is() -> None:
    state = state_of({"baseModel": {"name": "base", "aliases": ["$(HOME)"]}})
    assert plan_of(made(state, item_of(state, "1"))).base_models == ("base", "$(HOME)")


def test_the_job_may_do_nothing_but_its_work(state: FleetState) -> None:
    pod = pod_of(made(state, item_of(state, "1")))
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["restartPolicy"] == "Never"
    assert [port["containerPort"] for port in container["ports"]] == [PROGRESS_PORT]


def test_the_job_goes_with_its_fleet_and_by_itself(state: FleetState) -> None:
    job = made(state, item_of(state, "1"))
    assert [owner["uid"] for owner in job["metadata"]["ownerReferences"]] == ["f"]
    assert job["spec"]["ttlSecondsAfterFinished"] > 0
    assert job["spec"]["backoffLimit"] == 0


def test_the_items_are_read_back_from_the_job(state: FleetState) -> None:
    repair = SyncItem("python", "f", "hub", "python/hub-abc", hash_of(state, "hub"), repair=True)
    items = (item_of(state, "1"), SyncItem("", "f", served="python/1-abc"), SyncItem("", "f"), repair)
    assert jobs.read_items(made(state, *items)) == items
    assert [item.task for item in items] == [Task.PUBLISH, Task.REMOVE, Task.SCRUB, Task.REPAIR]
    assert jobs.read_items({"metadata": {}}) == ()
    for odd in ("{", '[["a"]]', "[1]", '{"a": 1}'):
        assert jobs.read_items({"metadata": {"annotations": {jobs.ITEMS_ANNOTATION: odd}}}) == ()


def test_the_claim_that_a_job_works_on_is_read_back_from_it(state: FleetState) -> None:
    assert manifests.claim_of(made(state, item_of(state, "2"))) == "adapters"
    assert manifests.claim_of({"spec": {"template": {"spec": {}}}}) == ""


def test_names_fit_their_labels() -> None:
    assert len(manifests.job_name("x" * 63)) <= 63
    # Kubernetes adds eleven characters for each of its Jobs.
    assert len(manifests.scrub_name("x" * 63)) <= 52
    assert manifests.scrub_name("x" * 62 + "y") != manifests.scrub_name("x" * 63)


def scrub_of(state: FleetState) -> dict[str, Any]:
    item = SyncItem("", "f")
    plan, items, _ = jobs.plan_for(state, [item], SETTINGS)
    assert state.fleet
    return manifests.scrub(state.fleet, "0 3 * * *", plan, items, SETTINGS)


def test_the_scrub_reads_the_volume_and_nothing_else() -> None:
    state = state_of({"baseModel": {"name": "base", "volume": {"claimName": "models"}}, **SIGNED})
    cron = scrub_of(state)
    template = cron["spec"]["jobTemplate"]
    assert cron["spec"]["schedule"] == "0 3 * * *"
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert set(mounts_of(template)) == {"/volume", "/tmp"}
    assert plan_of(template).items == (ScrubItem(),)
    assert [owner["uid"] for owner in cron["metadata"]["ownerReferences"]] == ["f"]


def test_jobs_of_the_scrub_are_found_as_those_of_the_operator(state: FleetState) -> None:
    template = scrub_of(state)["spec"]["jobTemplate"]
    ours = made(state, item_of(state, "1"))
    assert template["metadata"]["labels"] == ours["metadata"]["labels"]
    assert template["spec"]["template"]["metadata"]["labels"] == ours["spec"]["template"]["metadata"]["labels"]
    assert jobs.read_items(template) == (SyncItem("", "f"),)


@pytest.mark.parametrize("suspend", [True, False])
def test_a_suspended_fleet_is_not_scrubbed(suspend: bool) -> None:
    assert scrub_of(state_of({"suspend": suspend}))["spec"]["suspend"] is suspend


def test_a_manifest_is_json(state: FleetState) -> None:
    assert json.loads(json.dumps(made(state, item_of(state, "1"))))
