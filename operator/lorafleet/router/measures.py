"""What Envoy counts of each version, by its stats access logger. Pure; `statistics` reads it back.

Sums of milliseconds are counters, which cost little, so that means are there for every version; histograms cost a
kilobyte or more each (docs/router.md) and are kept for the versions that the Lua marks as measured.
"""

from typing import Any

_TYPE = "type.googleapis.com/"
_STATS = f"{_TYPE}envoy.extensions.access_loggers.stats.v3.Config"
PREFIX = "lorafleet"

SERVED_HEADER = "x-lorafleet-served"
MEASURED_HEADER = "x-lorafleet-measured"

_SERVED = f"%REQ({SERVED_HEADER})%"
_WHOLE = "%DURATION%"
_FIRST = "%COMMON_DURATION(DS_RX_BEG:US_RX_BODY_BEG:ms)%"
# One tag for three things: a tag of its own costs Envoy half a microsecond a request.
_OUTCOME = f"{_SERVED} %RESPONSE_CODE% %RESPONSE_FLAGS%"


def access_logs() -> list[dict[str, Any]]:
    """The loggers, each with the filter that keeps it to requests that have what it counts."""
    every = [_counter("requests", 1, _OUTCOME), _counter("whole_ms", _WHOLE, _OUTCOME)]
    first = [_counter("first", 1), _counter("first_ms", _FIRST)]
    used = [
        _counter("prompt_tokens", "%DYNAMIC_METADATA(lorafleet:used:prompt)%"),
        _counter("completion_tokens", "%DYNAMIC_METADATA(lorafleet:used:completion)%"),
    ]
    measured = _header(MEASURED_HEADER)
    return [
        _logger(_header(SERVED_HEADER), counters=every),
        _logger(_metadata("stream"), counters=first),
        _logger(_metadata("used"), counters=used),
        _logger(_both(measured, _succeeded()), histograms=[_histogram("whole", _WHOLE)]),
        _logger(_both(measured, _metadata("stream")), histograms=[_histogram("first_token", _FIRST)]),
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


def _stat(name: str, served: str = _SERVED) -> dict[str, Any]:
    return {"name": name, "tags": [{"name": "served", "value_format": served}]}


def _counter(name: str, value: int | str, served: str = _SERVED) -> dict[str, Any]:
    key = "value_fixed" if isinstance(value, int) else "value_format"
    return {"stat": _stat(name, served), key: value}


def _histogram(name: str, value: str) -> dict[str, Any]:
    return {"stat": _stat(name), "unit": "Milliseconds", "value_format": value}


def _header(name: str) -> dict[str, Any]:
    """Requests that the Lua gave this header."""
    return {"header_filter": {"header": {"name": name, "present_match": True}}}


def _metadata(key: str) -> dict[str, Any]:
    """Requests in whose dynamic metadata the Lua set ``key``."""
    matcher = {"filter": "lorafleet", "path": [{"key": key}], "value": {"present_match": True}}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": False}}


def _succeeded() -> dict[str, Any]:
    comparison = {"op": "LE", "value": {"default_value": 399, "runtime_key": "lorafleet.succeeded"}}
    return {"status_code_filter": {"comparison": comparison}}


def _both(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {"and_filter": {"filters": [one, other]}}
