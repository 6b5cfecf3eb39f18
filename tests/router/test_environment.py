"""Settings of ``lorafleet router`` from the environment."""

import pytest

from lorafleet.router.environment import Environment, EnvoyEnvironment
from lorafleet.router.settings import Settings


def test_without_variables_envoy_is_told_the_defaults() -> None:
    assert EnvoyEnvironment().model_dump() == Settings().model_dump()


@pytest.mark.parametrize(
    ("name", "value", "field", "found"),
    [
        ("MAX_BODY_BYTES", "10Mi", "max_body_bytes", 10 * 2**20),
        ("MAX_BODY_BYTES", "2048", "max_body_bytes", 2048),
        ("IDLE_TIMEOUT", "1h30m", "idle_timeout", 5400.0),
        ("REQUEST_TIMEOUT", "0s", "request_timeout", 0.0),
        ("CONNECT_TIMEOUT", "250ms", "connect_timeout", 0.25),
        ("CONNECT_TIMEOUT", "1.5", "connect_timeout", 1.5),
        ("CHECK_KEYS", "true", "check_keys", True),
        ("SESSION_HEADER", "", "session_header", ""),
        ("AFFINITY", "3", "affinity", 3),
    ],
)
def test_sizes_and_times_are_written_as_in_kubernetes(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, field: str, found: object
) -> None:
    monkeypatch.setenv(f"LORAFLEET_ROUTER_{name}", value)
    assert getattr(EnvoyEnvironment(), field) == found


@pytest.mark.parametrize(("name", "value"), [("CONNECT_TIMEOUT", "0s"), ("IDLE_TIMEOUT", "soon"), ("PORT", "0")])
def test_wrong_values_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"LORAFLEET_ROUTER_{name}", value)
    with pytest.raises(ValueError, match=name.lower()):
        EnvoyEnvironment()


def test_the_pod_says_where_and_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "hi-moe-router-1")
    monkeypatch.setenv("POD_NAMESPACE", "specialists")
    monkeypatch.setenv("LORAFLEET_ROUTER_FLEET", "hi-moe")
    monkeypatch.setenv("LORAFLEET_ROUTER_GRACE", "295s")
    found = Environment()
    assert (found.name, found.namespace, found.fleet, found.grace) == (
        "hi-moe-router-1",
        "specialists",
        "hi-moe",
        295.0,
    )


def test_a_router_has_a_fleet() -> None:
    with pytest.raises(ValueError, match="fleet"):
        Environment()
