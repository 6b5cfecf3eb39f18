"""What Envoy counts of each version, by its stats access logger. Pure; `statistics` reads it back.

Sums of milliseconds are counters, which cost little, so that means are there for every version; histograms cost a
kilobyte or more each (docs/router.md) and are kept for the versions that the Lua marks as measured.
"""

from typing import Any

_TYPE = "type.googleapis.com/"
_STATS = f"{_TYPE}envoy.extensions.access_loggers.stats.v3.Config"
PREFIX = "lorafleet"

_SERVED = "%REQ(x-lorafleet-served)%"
_WHOLE = "%DURATION%"
_FIRST = "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:ms)%"
_ROUTED = {"header_filter": {"header": {"name": "x-lorafleet-served", "present_match": True}}}
_CODE = {"name": "code", "value_format": "%RESPONSE_CODE%"}
_FLAGS = {"name": "flags", "value_format": "%RESPONSE_FLAGS%"}


def access_logs() -> list[dict[str, Any]]:
    """The loggers, each with the filter that keeps it to requests that have what it counts."""
    every = [_counter("requests", 1, _CODE, _FLAGS), _counter("whole_ms", _WHOLE, _CODE, _FLAGS)]
    first = [_counter("first", 1), _counter("first_ms", _FIRST)]
    used = [
        _counter("prompt_tokens", "%DYNAMIC_METADATA(lorafleet:prompt)%"),
        _counter("completion_tokens", "%DYNAMIC_METADATA(lorafleet:completion)%"),
    ]
    measured = _has("measured")
    return [
        _logger(_ROUTED, counters=every),
        _logger(_has("stream"), counters=first),
        _logger(_has("used"), counters=used),
        _logger(_both(measured, _succeeded()), histograms=[_histogram("whole", _WHOLE)]),
        _logger(_both(measured, _has("stream")), histograms=[_histogram("first_token", _FIRST)]),
    ]


def _logger(
    condition: dict[str, Any],
    counters: list[dict[str, Any]] | None = None,
    histograms: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    config = {
        "@type": _STATS,
        "stats_scope": {"prefix": PREFIX},
        "counters": counters or [],
        "histograms": histograms or [],
    }
    return {"name": "envoy.access_loggers.stats", "filter": condition, "typed_config": config}


def _stat(name: str, *tags: dict[str, str]) -> dict[str, Any]:
    return {"name": name, "tags": [{"name": "served", "value_format": _SERVED}, *tags]}


def _counter(name: str, value: int | str, *tags: dict[str, str]) -> dict[str, Any]:
    key = "value_fixed" if isinstance(value, int) else "value_format"
    return {"stat": _stat(name, *tags), key: value}


def _histogram(name: str, value: str) -> dict[str, Any]:
    return {"stat": _stat(name), "unit": "Milliseconds", "value_format": value}


def _has(key: str) -> dict[str, Any]:
    """Requests in whose dynamic metadata the Lua set ``key`` to true."""
    matcher = {"filter": "lorafleet", "path": [{"key": key}], "value": {"bool_match": True}}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _succeeded() -> dict[str, Any]:
    comparison = {"op": "LE", "value": {"default_value": 399, "runtime_key": "lorafleet.succeeded"}}
    return {"status_code_filter": {"comparison": comparison}}


def _both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {"and_filter": {"filters": [one, other]}}
