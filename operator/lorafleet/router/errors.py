"""Answers that Envoy gives by itself, in the shape of the OpenAI API. Pure."""

from typing import Any

from lorafleet.router.script import too_large
from lorafleet.router.settings import Settings


def local_replies(settings: Settings) -> dict[str, Any]:
    """The first mapper that fits is taken. What the Lua answers has no response flag and none of these codes."""
    return {
        "mappers": [
            _code(401, "invalid_request_error", "invalid_api_key", "The API key is missing or not one that is known."),
            _code(413, "invalid_request_error", "request_too_large", too_large(settings)),
            _code(403, "invalid_request_error", "upgrade_refused", "WebSockets and other upgrades are not routed."),
            _code(408, "invalid_request_error", "request_timeout", "The request did not arrive in time."),
            _code(500, "server_error", "router_failed", "The router could not read the request; its log says why."),
            _flag(["UH", "NC"], "no_engine", "No engine is ready at the moment. Try again soon.", retry=5),
            _flag(["UO"], "overloaded", "Too many requests are under way. Try again soon.", retry=1),
            _flag(["UT", "SI"], "timeout", "The engine did not answer in time.", status=504),
            _flag(
                ["UF", "UC", "UR", "LR", "URX"], "engine_failed", "The engine broke off before it answered.", retry=1
            ),
        ]
    }


def _body(kind: str, code: str, message: str) -> dict[str, Any]:
    error = {"message": message, "type": kind, "param": None, "code": code}
    return {"json_format": {"error": error}, "content_type": "application/json"}


def _code(status: int, kind: str, code: str, message: str) -> dict[str, Any]:
    comparison = {"op": "EQ", "value": {"default_value": status, "runtime_key": "lorafleet.status"}}
    return {
        "filter": {"status_code_filter": {"comparison": comparison}},
        "body_format_override": _body(kind, code, message),
    }


def _flag(
    flags: list[str], code: str, message: str, *, status: int | None = None, retry: int | None = None
) -> dict[str, Any]:
    mapper: dict[str, Any] = {
        "filter": {"response_flag_filter": {"flags": flags}},
        "body_format_override": _body("server_error", code, message),
    }
    if status is not None:
        mapper["status_code"] = status
    if retry is not None:
        mapper["headers_to_add"] = [{"header": {"key": "retry-after", "value": str(retry)}}]
    return mapper
