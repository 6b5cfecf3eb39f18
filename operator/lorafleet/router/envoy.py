"""The files that Envoy runs by: one that it starts with and those that it watches. Pure; `files.write` puts them down.

Started with `bootstrap`: the listener, the two clusters, timeouts, limits, statistics. A change of it takes a restart.
Watched, and made anew by `render` whenever the table changes:
    routes.json    the Lua filter with the table of adapters inside (ECDS)
    engines.json   addresses of the cluster `engines`: all that are Ready, for the base model (EDS)
    adapters.json  addresses of the cluster `adapters`: those of them that have the adapters (EDS)
    keys.json      the clients' keys (ECDS), if `Settings.check_keys`
    engine.key     what engines get as `authorization`, if they ask for a key; the Lua reads it when it is loaded
    tls.json       where the listener's certificate is, if clients speak TLS (SDS)
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lorafleet.router.clusters import cluster
from lorafleet.router.listener import (
    CERTIFICATE,
    KEY_AUTH,
    KEYS_FILTER,
    LUA,
    ROUTES_FILTER,
    listener,
)
from lorafleet.router.script import script, usable
from lorafleet.router.settings import Secrets, Settings
from lorafleet.router.table import EngineAddress, RoutingTable

BOOTSTRAP = "envoy.json"
ROUTES = "routes.json"
KEYS = "keys.json"
ENGINE_KEY = "engine.key"
TLS = "tls.json"
CLUSTERS = ("engines", "adapters")

_TYPE = "type.googleapis.com/"
_EXTENSION = f"{_TYPE}envoy.config.core.v3.TypedExtensionConfig"
_ASSIGNMENT = f"{_TYPE}envoy.config.endpoint.v3.ClusterLoadAssignment"
_SECRET = f"{_TYPE}envoy.extensions.transport_sockets.tls.v3.Secret"

_BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000)


def render(
    table: RoutingTable, settings: Settings, directory: Path, secrets: Secrets | None = None
) -> dict[str, bytes]:
    """The watched files, by name below ``directory``. The same input gives the same bytes."""
    secrets = secrets or Secrets()
    key, version = None, ""
    files = {}
    if secrets.engine_key:
        # Before the program that reads it.
        files[ENGINE_KEY] = f"Bearer {secrets.engine_key}".encode()
        key, version = directory / ENGINE_KEY, hashlib.sha256(files[ENGINE_KEY]).hexdigest()[:6]
    lua = {"@type": LUA, "default_source_code": {"inline_string": script(table, settings, key, version)}}
    files |= {
        ROUTES: _discovery(_extension(ROUTES_FILTER, lua)),
        "engines.json": _discovery(_assignment("engines", table.engines.values())),
        "adapters.json": _discovery(_assignment("adapters", usable(table))),
    }
    if settings.tls_directory is not None:
        files[TLS] = _discovery(
            {"@type": _SECRET, "name": CERTIFICATE, "tls_certificate": _certificate(settings.tls_directory)}
        )
    if settings.check_keys:
        files[KEYS] = _discovery(_extension(KEYS_FILTER, _key_filter(secrets.client_keys)))
    return files


def bootstrap(settings: Settings, directory: Path) -> bytes:
    """What ``envoy -c`` reads; ``directory`` is where `render`'s files will be."""
    bounds = [
        {
            "match": {"prefix": "lorafleet."},
            "buckets": list(_BUCKETS_MS),
        }
    ]
    config = {
        "node": {"id": "router", "cluster": "lorafleet"},
        "admin": {"address": _socket("127.0.0.1", settings.admin_port)},
        "static_resources": {
            "listeners": [listener(settings, directory)],
            "clusters": [cluster(name, settings, directory) for name in CLUSTERS],
        },
        "stats_config": {"histogram_bucket_settings": bounds},
    }
    return _json(config)


def arguments(settings: Settings, file: Path) -> list[str]:
    """What to give Envoy on its command line besides its own path."""
    words = ["-c", str(file), "--drain-time-s", str(round(settings.drain_time)), "--disable-hot-restart"]
    return [*words, *(["--concurrency", str(settings.concurrency)] if settings.concurrency else [])]


def _assignment(name: str, engines: Iterable[EngineAddress]) -> dict[str, Any]:
    endpoints = [
        {"endpoint": {"address": _socket(engine.ip, engine.port)}}
        for engine in sorted(engines, key=lambda engine: (engine.ip, engine.port))
    ]
    return {"@type": _ASSIGNMENT, "cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}


def _extension(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"@type": _EXTENSION, "name": name, "typed_config": config}


def _certificate(folder: Path) -> dict[str, Any]:
    return {
        "certificate_chain": {"filename": str(folder / "tls.crt")},
        "private_key": {"filename": str(folder / "tls.key")},
        # A mounted Secret changes by a rename in its folder.
        "watched_directory": {"path": str(folder)},
    }


def _key_filter(keys: Iterable[str]) -> dict[str, Any]:
    credentials = [{"key": key, "client": f"client-{number}"} for number, key in enumerate(sorted(set(keys)), start=1)]
    return {
        "@type": KEY_AUTH,
        "credentials": credentials,
        "key_sources": [{"header": "authorization"}, {"header": "x-api-key"}],
        "forwarding": {"hide_credentials": True},
    }


def _socket(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _discovery(resource: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(_json(resource)).hexdigest()[:16]
    return _json({"version_info": digest, "resources": [resource]})


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
