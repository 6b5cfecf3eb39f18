"""The listener of an Envoy configuration: what happens to a request on its way to an engine and back. Pure."""

from pathlib import Path
from typing import Any

from lorafleet.router.clusters import seconds, watched
from lorafleet.router.errors import local_replies
from lorafleet.router.measures import MEASURED_HEADER, SERVED_HEADER, access_logs
from lorafleet.router.settings import MIB, Settings

_TYPE = "type.googleapis.com/"
_HTTP = f"{_TYPE}envoy.extensions.filters.http"
LUA = f"{_HTTP}.lua.v3.Lua"
KEY_AUTH = f"{_HTTP}.api_key_auth.v3.ApiKeyAuth"
ROUTES_FILTER = "lorafleet.routes"
KEYS_FILTER = "lorafleet.keys"
CERTIFICATE = "clients"

_MANAGER = f"{_TYPE}envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_TLS = f"{_TYPE}envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
_EARLY = f"{_TYPE}envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
_PINNED = "x-lorafleet-pinned"
_BASE = "x-lorafleet-base"


def listener(settings: Settings, directory: Path) -> dict[str, Any]:
    """Where clients connect."""
    chain: dict[str, Any] = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": _manager(settings, directory),
            }
        ]
    }
    if settings.tls:
        chain["transport_socket"] = _tls(directory)
    return {
        "name": "clients",
        "address": {"socket_address": {"address": settings.address, "port_value": settings.port}},
        # Above the largest body, so that one that is too large by a little gets an answer and not a broken connection.
        "per_connection_buffer_limit_bytes": settings.max_body_bytes + MIB,
        "filter_chains": [chain],
    }


def _manager(settings: Settings, directory: Path) -> dict[str, Any]:
    filters = [
        *([_extension(KEYS_FILTER, (KEY_AUTH,), directory / "keys.json")] if settings.check_keys else []),
        _extension(ROUTES_FILTER, (LUA,), directory / "routes.json"),
        {
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": f"{_HTTP}.router.v3.Router",
                "suppress_envoy_headers": True,
                "dynamic_stats": False,
            },
        },
    ]
    return {
        "@type": _MANAGER,
        "stat_prefix": "clients",
        "route_config": _routes(settings),
        "http_filters": filters,
        "access_log": access_logs(),
        "local_reply_config": local_replies(settings),
        "generate_request_id": False,
        "use_remote_address": True,
        "skip_xff_append": True,
        "xff_num_trusted_hops": settings.trusted_hops,
        # Nobody may steer retries and timeouts by x-envoy-* headers, from whatever address.
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "server_name": "lorafleet",
        "server_header_transformation": "PASS_THROUGH",
        # Only paths that are exactly one of a list go on, so none has to be made normal first.
        "early_header_mutation_extensions": [_own_headers_removed()],
        "stream_idle_timeout": seconds(settings.idle_timeout),
        "request_timeout": seconds(settings.body_timeout),
        "common_http_protocol_options": {"idle_timeout": "3600s"},
        "drain_timeout": "5s",
    }


def _extension(name: str, types: tuple[str, ...], file: Path) -> dict[str, Any]:
    discovery = {"config_source": watched(file), "type_urls": [one.removeprefix(_TYPE) for one in types]}
    return {"name": name, "config_discovery": discovery}


def _routes(settings: Settings) -> dict[str, Any]:
    served, pinned, base = ({"name": name, "present_match": True} for name in (SERVED_HEADER, _PINNED, _BASE))
    health: dict[str, Any] = {"match": {"path": "/health"}, "direct_response": {"status": 200}}
    if settings.check_keys:
        # Whoever asks whether it lives has no key.
        off = {"@type": f"{_TYPE}envoy.config.route.v3.FilterConfig", "disabled": True}
        health["typed_per_filter_config"] = {KEYS_FILTER: off}
    routes = [
        health,
        {
            "match": {"prefix": "/", "headers": [pinned]},
            "route": _action("adapters", settings),
            # How the Lua knows, when the answer comes, which name the client used.
            "response_headers_to_add": [{"header": {"key": _PINNED, "value": "1"}}],
        },
        {"match": {"prefix": "/", "headers": [served]}, "route": _action("adapters", settings)},
        {"match": {"prefix": "/", "headers": [base]}, "route": _action("engines", settings)},
        # What the Lua has neither answered nor given a target: Envoy lets a request go on when the program fails.
        {"match": {"prefix": "/"}, "direct_response": {"status": 500}},
    ]
    return {
        "name": "routes",
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "request_headers_to_remove": ["x-api-key", _PINNED, _BASE],
                "routes": routes,
            }
        ],
    }


def _own_headers_removed() -> dict[str, Any]:
    names = (SERVED_HEADER, MEASURED_HEADER, _PINNED, _BASE)
    config = {"@type": _EARLY, "mutations": [{"remove": name} for name in names]}
    return {"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": config}


def _action(cluster: str, settings: Settings) -> dict[str, Any]:
    action: dict[str, Any] = {
        "cluster": cluster,
        "timeout": seconds(settings.request_timeout),
        "idle_timeout": seconds(settings.idle_timeout),
    }
    if settings.retries:
        action["retry_policy"] = {
            # All of them end with the first byte of an answer. 404: the engine does not have the adapter (yet).
            "retry_on": "connect-failure,refused-stream,reset,retriable-status-codes",
            "retriable_status_codes": [404, 503],
            "num_retries": settings.retries,
            "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": f"{_TYPE}envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            # Of two engines the busy one is drawn once in 2^5 times, when the other one is dead.
            "host_selection_retry_max_attempts": 300,
        }
    return action


def _tls(directory: Path) -> dict[str, Any]:
    context = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [{"name": CERTIFICATE, "sds_config": watched(directory / "tls.json")}],
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": _TLS, "common_tls_context": context},
    }
