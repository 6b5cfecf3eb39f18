"""The commands that ask a cluster: each connects, reads, and prints what a pure function makes of it.

``answer`` is where all of them end, so that no error becomes a traceback.
"""

import asyncio
import contextlib
import json
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from lorafleet.api.names import ADAPTER_PLURAL, FLEET_PLURAL
from lorafleet.cli import actions, explain, explanation, fleetexplain, follow, history, listing, matrix, seen, summary
from lorafleet.cli.cluster import WORDS, Asked, Cluster, connected
from lorafleet.cli.outcome import Ended, Exit, cannot_ask, program
from lorafleet.cli.terminal import console, document, put

_KINDS = {
    **dict.fromkeys(("adapter", "adapters", "loraadapter", ADAPTER_PLURAL), ADAPTER_PLURAL),
    **dict.fromkeys(("fleet", "fleets", "specialistfleet", FLEET_PLURAL), FLEET_PLURAL),
}


def answer(asked: Asked, ask: Callable[[Cluster], Awaitable[Exit]]) -> int:
    """Ask the cluster that the user means; the exit code. Says on standard error why there is no answer."""

    async def run() -> Exit:
        async with connected(asked) as cluster:
            return await ask(cluster)

    try:
        return asyncio.run(run())
    except Ended as end:
        sys.stderr.write(f"error: {end.text}\n")
        return end.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python would complain once more at its end.
        sys.stdout = None
        return Exit.OK
    except json.JSONDecodeError:
        sys.stderr.write(
            "error: the server does not answer as an API server of Kubernetes does; use another --context\n"
        )
        return Exit.CANNOT_ASK
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
        sys.stderr.write(f"error: lorafleet failed ({type(error).__name__} at {place}); please report it\n")
        return Exit.CANNOT_ASK


def kinds_and_names(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What ``get`` was asked for: plurals, and names; ``fleet/x`` and ``fleets x`` are the same."""
    if not words:
        return (FLEET_PLURAL, ADAPTER_PLURAL), ()
    if words[0] in _KINDS:
        return (_KINDS[words[0]],), tuple(words[1:])
    named = [_one(word) for word in words]
    plurals = {plural for plural, _ in named}
    if len(plurals) > 1:
        raise cannot_ask("names are of adapters or of fleets, not of both; ask twice")
    return tuple(plurals), tuple(name for _, name in named)


def _one(word: str) -> tuple[str, str]:
    """``fleet/x`` or the name of an adapter."""
    kind, slash, name = word.rpartition("/")
    if slash and kind not in _KINDS:
        raise cannot_ask(f"{word} is no adapter or fleet; expected NAME, adapter/NAME or fleet/NAME")
    return _KINDS.get(kind, ADAPTER_PLURAL), name


async def get(cluster: Cluster, words: Sequence[str], selector: str | None, everywhere: bool, form: str) -> Exit:
    """Tables of adapters and fleets."""
    plurals, names = kinds_and_names(words)
    if names and (selector is not None or everywhere):
        raise cannot_ask("a name is of one namespace and needs no labels; leave -A and -l out")
    query = {"labelSelector": selector} if selector is not None else {}
    found: dict[str, list[Any]] = {}
    for plural in plurals:
        items = (await cluster.all(plural, everywhere=everywhere, **query))["items"]
        known = {item["metadata"]["name"]: item for item in items}
        if missing := [name for name in names if name not in known]:
            raise await cluster.unknown(plural, missing, known)
        found[plural] = [known[name] for name in names] if names else items
    fleets = [seen.fleet(item) for item in found.get(FLEET_PLURAL, ())]
    adapters = [seen.adapter(item) for item in found.get(ADAPTER_PLURAL, ())]
    if form != "text":
        rows = {
            WORDS[plural] + "s": [summary.fleet_document(one) for one in fleets]
            if plural == FLEET_PLURAL
            else [summary.document(one) for one in adapters]
            for plural in plurals
        }
        sys.stdout.write(document({"schemaVersion": 1, **rows}, form))
        return Exit.OK
    now, page = datetime.now(UTC), console(sys.stdout)
    tables = [listing.fleets(fleets, now, everywhere)] if fleets else []
    tables += [listing.adapters(adapters, now, everywhere)] if adapters else []
    for number, one in enumerate(tables):
        if number:
            page.print()
        put(page, one)
    if not tables:
        where = "any namespace" if everywhere else f"namespace {cluster.place.namespace}"
        what = " or ".join(WORDS[plural] for plural in plurals)
        sys.stderr.write(f"there is no {what} in {where}{' with these labels' if selector else ''}\n")
    return Exit.OK


async def status(cluster: Cluster, word: str, *, watch: bool, wait: bool, timeout: float, form: str) -> Exit:
    """The picture of an adapter or a fleet, once, at each change, or when it is settled."""
    plural, name = _one(word)
    kind: follow.Kind[Any] = follow.FLEET if plural == FLEET_PLURAL else follow.ADAPTER
    if watch and wait:
        raise cannot_ask("--watch goes on for ever and --wait ends; give one of them")
    if watch:
        # Ctrl-C is how a watch ends.
        with contextlib.suppress(asyncio.CancelledError):
            await follow.watch(cluster, kind, name, form)
        return Exit.OK
    if not wait:
        follow.show(kind, kind.read(await cluster.one(plural, name)), form)
        return Exit.OK
    found, end = await follow.wait(cluster, kind, name, timeout)
    follow.show(kind, found, form)
    if end is not Exit.OK:
        why = f"not Ready within {timeout:g} s" if end is Exit.TIMEOUT else "Stalled"
        sys.stderr.write(f"error: {WORDS[plural]} {name} is {why}: {summary.ready(found)}\n")
    return end


async def explained(cluster: Cluster, word: str, form: str) -> Exit:
    """An adapter or a fleet in words."""
    plural, name = _one(word)
    item, options = await cluster.one(plural, name), cluster.place.options
    if plural == FLEET_PLURAL:
        words = fleetexplain.explain(seen.fleet(item), program(), options)
    else:
        words = explain.explain(seen.adapter(item), datetime.now(UTC), program(), options)
    if form != "text":
        sys.stdout.write(document(explanation.document(words), form))
        return Exit.OK
    page = console(sys.stdout)
    for line in explanation.page(words):
        page.print(line, soft_wrap=bool(line.no_wrap) or not page.is_terminal)
    return Exit.OK


async def told(cluster: Cluster, name: str, form: str) -> Exit:
    """The history of an adapter."""
    found = seen.adapter(await cluster.one(ADAPTER_PLURAL, name))
    if form != "text":
        rows = found.status.to_json().get("history", [])
        body = {"schemaVersion": 1, "adapter": name, "namespace": found.identity.namespace, "history": rows}
        sys.stdout.write(document(body, form))
    elif found.status.history:
        put(console(sys.stdout), history.history(found, datetime.now(UTC)))
    else:
        sys.stderr.write(f"nothing has happened to adapter {name} in namespace {found.identity.namespace} yet\n")
    return Exit.OK


async def loads(cluster: Cluster, name: str, everything: bool, form: str) -> Exit:
    """The matrix of a fleet."""
    fleet = seen.fleet(await cluster.one(FLEET_PLURAL, name.removeprefix("fleet/")))
    items = (await cluster.all(ADAPTER_PLURAL))["items"]
    rows = matrix.rows(fleet, [one for one in map(seen.adapter, items) if one.fleet == fleet.name])
    if form != "text":
        sys.stdout.write(document(matrix.document(fleet, rows), form))
        return Exit.OK
    page = console(sys.stdout)
    for part in matrix.page(fleet, rows, everything):
        if isinstance(part, Table):
            put(page, part)
        else:
            page.print(part)
    return Exit.OK


async def act(
    cluster: Cluster,
    names: Sequence[str],
    selector: str | None,
    verb: str,
    argument: str | None,
    timeout: float | None,
    form: str,
) -> Exit:
    """A verb on adapters."""
    results = await actions.act(cluster, names, selector, verb, argument, timeout)
    if form != "text":
        sys.stdout.write(document(actions.document(results, cluster.place.namespace), form))
    else:
        put(console(sys.stdout), actions.page(results))
    return actions.exit_of(results)
