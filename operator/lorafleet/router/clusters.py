"""The clusters of an Envoy configuration: how engines are chosen, limited and left out. Pure."""

from pathlib import Path
from typing import Any

from lorafleet.router.settings import Settings

_TYPE = "type.googleapis.com/"
_LEAST = f"{_TYPE}envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"
_OVERRIDE = f"{_TYPE}envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost"
_HTTP = f"{_TYPE}envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

CHOICES = 5
"""The least loaded of so many engines, drawn by chance, is asked."""


def watched(path: Path) -> dict[str, Any]:
    """A source of configuration that is one file, taken up anew when another is renamed to its name."""
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def seconds(value: float) -> str:
    """A duration as protobuf writes it in JSON."""
    return f"{value:g}s"


def cluster(name: str, settings: Settings, directory: Path) -> dict[str, Any]:
    """The cluster ``name``; its engines are in ``<name>.json``."""
    # All limits have to be given: left out they are 1,024, and 3 retries.
    thresholds = {
        "max_connections": settings.max_connections,
        "max_pending_requests": settings.max_pending,
        "max_requests": settings.max_requests,
        "max_retries": settings.max_requests,
    }
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": watched(directory / f"{name}.json"), "service_name": name},
        "connect_timeout": seconds(settings.connect_timeout),
        "load_balancing_policy": _policy(),
        "circuit_breakers": {"thresholds": [thresholds]},
        "outlier_detection": _ejection(settings),
        # A Ready pod is healthy; with most of them left out, all are tried again.
        "common_lb_config": {"healthy_panic_threshold": {"value": 100 - settings.eject_percent}},
        "upstream_connection_options": {"tcp_keepalive": {"keepalive_time": 60, "keepalive_interval": 15}},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP,
                "common_http_protocol_options": {"idle_timeout": seconds(settings.engine_idle_timeout)},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _policy() -> dict[str, Any]:
    least = {
        "name": "envoy.load_balancing_policies.least_request",
        # Not the least loaded of all: that is a dead engine at once, also for every further try.
        "typed_config": {"@type": _LEAST, "choice_count": CHOICES},
    }
    hosts = {"metadata": {"key": "lorafleet", "path": [{"key": "hosts"}]}}
    override = {
        "@type": _OVERRIDE,
        "override_host_sources": [hosts],
        "fallback_policy": {"policies": [{"typed_extension_config": least}]},
    }
    name = "envoy.load_balancing_policies.override_host"
    return {"policies": [{"typed_extension_config": {"name": name, "typed_config": override}}]}


def _ejection(settings: Settings) -> dict[str, Any]:
    on = 100 if settings.eject_after else 0
    after = settings.eject_after or 5
    return {
        # An engine's own 500 may be the request's fault: only 502 to 504, and connections that fail or break.
        "enforcing_consecutive_5xx": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "split_external_local_origin_errors": True,
        "consecutive_gateway_failure": after,
        "enforcing_consecutive_gateway_failure": on,
        "consecutive_local_origin_failure": after,
        "enforcing_consecutive_local_origin_failure": on,
        "interval": "1s",
        "base_ejection_time": seconds(settings.eject_time),
        "max_ejection_time": seconds(settings.eject_time * 6),
        "max_ejection_percent": settings.eject_percent,
        "always_eject_one_host": False,
    }
