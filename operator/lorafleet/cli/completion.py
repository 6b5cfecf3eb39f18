"""What the shell completes from the cluster: names of adapters and fleets, versions, contexts. Fast or nothing.

kubectl completes a plugin by running ``kubectl_complete-<plugin>`` with the words so far; ``complete`` is that program.
"""

import asyncio
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import typer

from lorafleet.api.names import ADAPTER_PLURAL, FLEET_PLURAL
from lorafleet.kube import Object

_PATIENCE = 2.0
_NO_FILES = ":4"
"""The shell shall not complete file names (cobra's ShellCompDirectiveNoFileComp)."""


def names(context: typer.Context, incomplete: str) -> list[str]:
    """Adapters that begin so."""
    return _beginning(_listed(context, ADAPTER_PLURAL), incomplete)


def fleets(context: typer.Context, incomplete: str) -> list[str]:
    """Fleets that begin so."""
    return _beginning(_listed(context, FLEET_PLURAL), incomplete)


def words(context: typer.Context, incomplete: str) -> list[str]:
    """What ``get`` and ``status`` may be given."""
    if incomplete.startswith("fleet/"):
        return [f"fleet/{name}" for name in fleets(context, incomplete.removeprefix("fleet/"))]
    before = context.params.get("words") or ()
    if before and before[0] in ("fleet", "fleets"):
        return fleets(context, incomplete)
    kinds = ["fleet/"] if context.info_name == "status" else [] if before else ["adapters", "fleets"]
    return _beginning([*kinds, *_listed(context, ADAPTER_PLURAL)], incomplete)


def versions(context: typer.Context, incomplete: str) -> list[str]:
    """Versions of the adapter that served before and may serve again."""
    from lorafleet.cli.seen import adapter

    # While an option lacks its value, what was typed before it has not been read yet.
    name = context.params.get("adapter") or next(iter(context.args), None)
    if not name:
        return []
    found = [adapter(item) for item in _items(context, ADAPTER_PLURAL) if item["metadata"]["name"] == name]
    proven = [
        one.name for each in found for one in each.status.versions if one.proven_at and not each.aborted(one.name)
    ]
    return _beginning(proven, incomplete)


def contexts(context: typer.Context, incomplete: str) -> list[str]:
    """Contexts of the kubeconfig."""
    from lorafleet.cli.cluster import known_contexts
    from lorafleet.cli.outcome import Ended

    with contextlib.suppress(Ended):
        return _beginning(list(known_contexts(context.params.get("kubeconfig"))), incomplete)
    return []


def complete() -> None:
    """``kubectl_complete-lorafleet WORD…``: candidates, one a line, and a directive, as kubectl expects it."""
    from lorafleet.cli.main import app

    typed = ["lorafleet", *sys.argv[1:]]
    line = " ".join([*map(shlex.quote, typed[:-1]), typed[-1]])
    os.environ |= {
        "_LORAFLEET_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": line,
    }
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        app(prog_name="lorafleet")
    sys.stdout.write(f"{said.getvalue().rstrip()}\n{_NO_FILES}\n".lstrip())


def _beginning(found: list[str], incomplete: str) -> list[str]:
    return [name for name in found if name.startswith(incomplete)]


def _listed(context: typer.Context, plural: str) -> list[str]:
    return [item["metadata"]["name"] for item in _items(context, plural)]


def _items(context: typer.Context, plural: str) -> list[Object]:
    """Objects of the namespace that was typed; none when the cluster does not answer at once."""
    from lorafleet.cli.cluster import Asked, connected

    typed = context.params
    asked = Asked(typed.get("kubeconfig"), typed.get("context"), typed.get("namespace"))

    async def ask() -> list[Object]:
        async with asyncio.timeout(_PATIENCE):
            async with connected(asked) as cluster:
                found = await cluster.all(plural)
                items: list[Object] = found["items"]
                return items

    return _quietly(ask)


def _quietly(ask: Callable[[], Coroutine[Any, Any, list[Object]]]) -> list[Object]:
    """Whatever is wrong, a shell that completes shows nothing of it."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return asyncio.run(ask())
    except Exception:
        return []
