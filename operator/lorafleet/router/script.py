"""The Lua that routes: the code in ``lua/`` with the table and the settings that it needs put before it. Pure.

The table is one string, because LuaJIT does not compile a table of more than about 65,000 constants. A line is an
adapter, ``name<TAB>served|weight|version|missing<TAB>…<TAB>``; ``missing`` are numbers of engines that lack it.
``=base`` and ``=engines`` are lines too; no adapter begins with an equals sign.
"""

from functools import cache
from importlib import resources
from pathlib import Path

from lorafleet.router.settings import Settings
from lorafleet.router.table import EngineAddress, Route, RoutingTable

PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/v1/score",
    "/score",
    "/pooling",
    "/classify",
    "/tokenize",
    "/detokenize",
)
"""What reaches engines (vLLM 0.32.0): a POST of one JSON object with a ``model``, answered without a state."""

_FILES = ("scan.lua", "routes.lua", "reply.lua", "request.lua", "response.lua", "collector.lua")


def too_large(settings: Settings) -> str:
    """What a client is told whose body is above the limit."""
    return f"The body is larger than the {settings.max_body_bytes} bytes that this router takes."


def script(table: RoutingTable, settings: Settings, key: Path | None = None, version: str = "") -> str:
    """The whole program. ``key`` is the file with what engines get as ``authorization``, ``version`` of what it holds.

    The key itself is not in the program, which Envoy shows to whoever may ask it and may name in an error. Raises
    ValueError for a name that the table cannot hold.
    """
    versions = {target.served for route in table.routes.values() for target in route.targets}
    values = {
        "affinity": settings.affinity,
        "retries": settings.retries,
        "max_body": settings.max_body_bytes,
        "session_header": settings.session_header,
        "sticky_user": settings.sticky_user,
        "restore_model": settings.restore_model,
        "count_tokens": settings.count_tokens,
        "list_pinned": settings.list_pinned,
        "measure_all": len(versions) <= settings.histograms,
        "paths": " ".join(PATHS),
    }
    head = "\n".join(
        [
            "local SETTINGS = {" + ", ".join(f"{name} = {_literal(value)}" for name, value in values.items()) + "}",
            f"local TOO_LARGE = {_literal(too_large(settings))}",
            "local LOADED = os.time()",
            f"local KEY_FILE, KEY_VERSION = {_literal(key)}, {_literal(version)}",
            "local TABLE = ...",
        ]
    )
    # A chunk is named by its whole source, and functions keep the name of their chunk: they would keep the table twice.
    program = f"{head}\n{_code()}"
    return f"return assert(loadstring({_literal(program)}, '=lorafleet'))({_literal(pack(table, settings))})"


def usable(table: RoutingTable) -> list[EngineAddress]:
    """The engines that adapters' requests go to, by name: all Ready ones when none is known to have its adapters."""
    engines = [table.engines[name] for name in sorted(table.engines)]
    return [engine for engine in engines if engine.adapters] or engines


def pack(table: RoutingTable, settings: Settings) -> str:
    """The table as lines. Addresses are in it only when the Lua must choose among engines itself."""
    engines = usable(table)
    lacking: dict[str, list[int]] = {}
    for number, engine in enumerate(engines, start=1):
        for served in engine.missing:
            lacking.setdefault(served, []).append(number)
    lines = ["\t".join(["=base", *(_checked(name) for name in table.base_names)])]
    if lacking or settings.affinity:
        lines.append("\t".join(["=engines", *(address(engine) for engine in engines)]))
    lines += [_line(table.routes[name], lacking) for name in sorted(table.routes)]
    return "\n".join(lines) + "\n"


def address(engine: EngineAddress) -> str:
    """``ip:port``, as Envoy writes it."""
    return f"[{engine.ip}]:{engine.port}" if ":" in engine.ip else f"{engine.ip}:{engine.port}"


def _line(route: Route, lacking: dict[str, list[int]]) -> str:
    versions = {served: version for version, served in route.pinned.items()}
    weights = {target.served: target.weight for target in route.targets}
    fields = [_checked(route.adapter)]
    for served in sorted({*versions, *weights}):
        missing = ".".join(map(str, lacking.get(served, ()))) if lacking else ""
        parts = (_checked(served), str(weights.get(served, 0)), _checked(versions.get(served, "")), missing)
        fields.append("|".join(parts))
    return "\t".join([*fields, ""])


def _checked(name: str) -> str:
    if any(character in name for character in "\t\n\r\0|") or name.startswith("="):
        raise ValueError(f"the name {name!r} has a character that no routing table can hold; rename it")
    return name


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if value is None:
        return "nil"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{text}"'


@cache
def _code() -> str:
    folder = resources.files("lorafleet.router") / "lua"
    return "\n".join(folder.joinpath(name).read_text() for name in _FILES)
