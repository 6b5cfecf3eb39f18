"""What is wrong with an engine: every diagnosis, whether it blocks, and the fix in its message."""

from dataclasses import replace
from typing import Any

import pytest

from lorafleet.api.reasons import Reason
from lorafleet.engines.diagnosis import Diagnosis, Expectations, diagnose
from lorafleet.engines.errors import EngineError, Misconfigured, Rejected, Retry
from lorafleet.engines.facts import engine_facts
from tests.engines.test_facts import pod

ENV = [
    {"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "true"},
    {"name": "VLLM_PLUGINS", "value": "lora_filesystem_resolver"},
    {"name": "VLLM_LORA_RESOLVER_CACHE_DIR", "value": "/adapters"},
]
HEALTHY = engine_facts(pod(args=["--model", "acme/base", "--enable-lora"], env=ENV), 8000)
FLEET = Expectations(base_names=("acme/base", "acme/alias"), mount_path="/adapters", engine_model="acme/base")
BASES = (("acme/base", "acme/base"),)


def about(
    facts: Any = HEALTHY,
    *,
    bases: Any = BASES,
    version: str | None = "0.32.0",
    error: EngineError | None = None,
    runtime_updating: bool | None = None,
    fleet: Expectations = FLEET,
) -> tuple[Diagnosis, ...]:
    return diagnose(
        facts, bases=bases, version=version, error=error, runtime_updating=runtime_updating, expectations=fleet
    )


def only(found: tuple[Diagnosis, ...]) -> Diagnosis:
    assert len(found) == 1
    assert "engine vllm-0" in found[0].message
    return found[0]


def test_a_healthy_engine_has_no_diagnosis() -> None:
    assert about() == ()
    assert about(bases=None, version=None) == ()


@pytest.mark.parametrize(
    ("changes", "reason", "fix"),
    [
        ({"enable_lora": False}, Reason.LORA_DISABLED, "without --enable-lora; add it and restart"),
        ({"runtime_updating": False}, Reason.RUNTIME_UPDATING_DISABLED, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=true"),
        ({"api_server_count": 2}, Reason.TOO_MANY_API_SERVERS, "--api-server-count 1"),
        ({"port": None}, Reason.PORT_NOT_FOUND, "spec.engines.port"),
    ],
)
def test_what_the_pod_shows_blocks(changes: dict[str, Any], reason: Reason, fix: str) -> None:
    found = only(about(replace(HEALTHY, **changes)))
    assert (found.reason, found.blocking) == (reason, True)
    assert fix in found.message


def test_what_is_unknown_is_no_diagnosis() -> None:
    assert about(replace(HEALTHY, enable_lora=None, runtime_updating=None, model=None)) == ()


def test_what_the_engine_said_of_runtime_updating_outweighs_its_pod() -> None:
    assert about(replace(HEALTHY, runtime_updating=False, api_server_count=2), runtime_updating=True) == ()
    assert only(about(runtime_updating=False)).reason is Reason.RUNTIME_UPDATING_DISABLED


@pytest.mark.parametrize(
    ("changes", "reason", "fix"),
    [
        ({"plugins": ("other",)}, Reason.RESOLVER_NOT_CONFIGURED, "VLLM_PLUGINS"),
        ({"resolver_dir": None}, Reason.RESOLVER_NOT_CONFIGURED, "set it to /adapters"),
        ({"resolver_dir": "/loras"}, Reason.RESOLVER_DIRECTORY_DIFFERS, "/loras"),
    ],
)
def test_the_resolver_warns_and_says_that_loads_work(changes: dict[str, Any], reason: Reason, fix: str) -> None:
    found = only(about(replace(HEALTHY, **changes)))
    assert (found.reason, found.blocking) == (reason, False)
    assert fix in found.message
    assert "loads work" in found.message


def test_without_a_list_of_plugins_all_of_them_are_loaded() -> None:
    assert about(replace(HEALTHY, plugins=None)) == ()


def test_a_slash_at_the_end_is_no_other_directory() -> None:
    assert about(replace(HEALTHY, resolver_dir="/adapters/")) == ()


@pytest.mark.parametrize("unknown", ["VLLM_PLUGINS", "VLLM_LORA_RESOLVER_CACHE_DIR"])
def test_an_unread_variable_of_the_resolver_is_no_diagnosis(unknown: str) -> None:
    bare = replace(HEALTHY, plugins=None, unknown=frozenset({unknown}))
    assert about(replace(bare, resolver_dir=None if unknown.endswith("DIR") else "/adapters")) == ()


@pytest.mark.parametrize(
    ("version", "supported"),
    [
        ("0.27.0", False), ("0.27.1", True), ("0.9.2", False), ("0.27.1rc1", True), ("0.27", False), ("1.0.0", True),
        ("0.32.0+cpu", True), ("0.1.dev1+g123", True), ("nightly", True), (None, True),
    ],
)  # fmt: skip
def test_versions_before_the_fix_of_the_mix_up_block(version: str | None, supported: bool) -> None:
    found = about(version=version)
    assert (found == ()) is supported
    if not supported:
        assert (only(found).reason, only(found).blocking) == (Reason.VERSION_NOT_SUPPORTED, True)
        assert "0.27.1" in only(found).message


@pytest.mark.parametrize(
    ("bases", "fits"),
    [
        ((("acme/base", "acme/base"),), True),
        ((("short", "acme/base"),), True),
        ((("other", "acme/other"), ("acme/alias", "acme/other")), True),
        ((("other", "acme/other"),), False),
        ((), False),
    ],
)
def test_the_base_model_fits_by_id_or_root_and_any_name_of_the_fleet(bases: Any, fits: bool) -> None:
    fleet = replace(FLEET, engine_model=None)
    found = about(replace(HEALTHY, served_model_names=()), bases=bases, fleet=fleet)
    assert (found == ()) is fits
    if not fits:
        assert (only(found).reason, only(found).blocking) == (Reason.BASE_MODEL_DIFFERS, True)


def test_before_the_listing_the_command_line_tells_the_base_model() -> None:
    found = only(about(replace(HEALTHY, model="acme/other"), bases=None))
    assert (found.reason, found.blocking) == (Reason.BASE_MODEL_DIFFERS, True)
    assert "spec.baseModel.aliases" in found.message


def test_another_model_argument_than_published_for_warns() -> None:
    found = only(about(bases=(("acme/base", "/models/base"),)))
    assert (found.reason, found.blocking) == (Reason.BASE_MODEL_DIFFERS, False)
    assert "--model /models/base" in found.message
    assert "--model acme/base" in found.message


def test_an_engine_of_two_fleets_blocks_and_names_the_other() -> None:
    found = only(about(fleet=replace(FLEET, other_fleets=("hi-moe",))))
    assert (found.reason, found.blocking) == (Reason.CLAIMED_BY_TWO_FLEETS, True)
    assert "hi-moe" in found.message


def test_a_key_that_the_fleet_does_not_name_blocks_until_the_engine_has_answered() -> None:
    keyed = replace(HEALTHY, has_api_key=True)
    found = only(about(keyed, bases=None))
    assert (found.reason, found.blocking) == (Reason.API_KEY_MISSING, True)
    assert about(keyed) == ()
    assert about(keyed, bases=None, fleet=replace(FLEET, expects_api_key=True)) == ()


def test_a_secret_that_could_not_be_read_is_said_to_be_missing() -> None:
    error = Misconfigured(Reason.API_KEY_MISSING, "engine vllm-0 refused")
    found = only(about(error=error, fleet=replace(FLEET, expects_api_key=True)))
    assert "create the Secret" in found.message


@pytest.mark.parametrize(
    "error",
    [
        Retry(Reason.UNREACHABLE, "engine vllm-0 does not answer"),
        Retry(Reason.HUNG, "engine vllm-0 accepts connections and did not list its models"),
        Misconfigured(Reason.API_KEY_REJECTED, "engine vllm-0 refused the API key"),
        Misconfigured(Reason.LORA_DISABLED, "engine vllm-0 did not load"),
    ],
)
def test_how_the_last_call_failed_blocks_with_its_own_words(error: EngineError) -> None:
    assert only(about(error=error)) == Diagnosis(error.reason, error.message)


@pytest.mark.parametrize(
    "error",
    [Retry(Reason.LOAD_FAILED, "no such path"), Rejected(Reason.RANK_TOO_HIGH, "rank 64")],
)
def test_an_adapter_that_does_not_load_says_nothing_about_the_engine(error: EngineError) -> None:
    assert about(error=error) == ()


def test_one_reason_is_said_once_and_what_blocks_comes_first() -> None:
    facts = replace(HEALTHY, enable_lora=False, resolver_dir=None)
    found = about(facts, error=Misconfigured(Reason.LORA_DISABLED, "engine vllm-0 said so"))
    assert [one.reason for one in found] == [Reason.LORA_DISABLED, Reason.RESOLVER_NOT_CONFIGURED]
    assert found[0].message == "engine vllm-0 said so"
