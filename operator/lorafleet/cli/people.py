"""The commands for people who run fleets: ``get``, ``status``, ``explain``, ``history``, ``load-matrix``, the verbs.

Only what the shell sees of them is here; what they need is imported when one runs.
"""

from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorafleet.cli.form import Form

if TYPE_CHECKING:
    from lorafleet.cli.cluster import Cluster
    from lorafleet.cli.outcome import Exit


def _names(context: typer.Context, incomplete: str) -> list[str]:
    from lorafleet.cli.completion import names

    return names(context, incomplete)


def _fleets(context: typer.Context, incomplete: str) -> list[str]:
    from lorafleet.cli.completion import fleets

    return fleets(context, incomplete)


def _words(context: typer.Context, incomplete: str) -> list[str]:
    from lorafleet.cli.completion import words

    return words(context, incomplete)


def _versions(context: typer.Context, incomplete: str) -> list[str]:
    from lorafleet.cli.completion import versions

    return versions(context, incomplete)


def _contexts(context: typer.Context, incomplete: str) -> list[str]:
    from lorafleet.cli.completion import contexts

    return contexts(context, incomplete)


_Form = Annotated[Form, typer.Option("--output", "-o", help="How to print.")]
_Context = Annotated[
    str | None,
    typer.Option("--context", help="The context of the kubeconfig; its current one.", autocompletion=_contexts),
]
_Kubeconfig = Annotated[
    str | None, typer.Option("--kubeconfig", metavar="FILE", help="A kubeconfig in the place of the usual one.")
]
_Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="The namespace; that of the context.")]
_Adapter = Annotated[
    str, typer.Argument(metavar="ADAPTER", help="The adapter.", show_default=False, autocompletion=_names)
]
_Either = Annotated[
    str,
    typer.Argument(
        metavar="ADAPTER|fleet/NAME", help="The adapter or fleet.", show_default=False, autocompletion=_words
    ),
]
_Adapters = Annotated[
    list[str] | None, typer.Argument(metavar="[ADAPTER]…", help="Adapters.", show_default=False, autocompletion=_names)
]
_Selector = Annotated[
    str | None, typer.Option("--selector", "-l", help="Adapters with these labels, such as team=search.")
]
_Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the operator says what came of it.")]
_Timeout = Annotated[float, typer.Option("--timeout", min=0, help="How long to wait, in seconds.")]

_Question = Callable[["Cluster"], Awaitable["Exit"]]
_WHERE: dict[str, Any] = {"kubeconfig": _Kubeconfig, "context": _Context, "namespace": _Namespace}
"""The options of every command here."""


def _asking(command: Callable[..., _Question]) -> Callable[..., None]:
    """What the shell runs: asks the cluster that its options name what ``command`` returns."""

    @wraps(command)
    def run(*, kubeconfig: str | None, context: str | None, namespace: str | None, **words: Any) -> None:
        from lorafleet.cli import asking
        from lorafleet.cli.cluster import Asked

        raise typer.Exit(asking.answer(Asked(kubeconfig, context, namespace), command(**words)))

    more = [Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in _WHERE.items()]
    parameters = [*signature(command).parameters.values(), *more]
    # What typer reads.
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def get(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[adapters|fleets] [NAME]…",
            help="Which; both kinds when left out.",
            show_default=False,
            autocompletion=_words,
        ),
    ] = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Those of all namespaces.")] = False,
    selector: _Selector = None,
    output: _Form = Form.TEXT,
) -> _Question:
    """List adapters and fleets with what serves and how it does."""
    from lorafleet.cli import asking

    return lambda cluster: asking.get(cluster, words or (), selector, everywhere, output)


def status(
    adapter: _Either,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again at each change, until Ctrl-C.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is Ready (0) or Stalled (1).")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="How long to --wait, in seconds; exit code 3 then.")] = 300.0,
    output: _Form = Form.TEXT,
) -> _Question:
    """Show an adapter's rollout, or a fleet's engines, as they are now or as they change."""
    from lorafleet.cli import asking

    return lambda cluster: asking.status(cluster, adapter, watch=watch, wait=wait, timeout=timeout, form=output)


def explain(adapter: _Either, output: _Form = Form.TEXT) -> _Question:
    """Say in words why an adapter or a fleet is where it is, and what to do next."""
    from lorafleet.cli import asking

    return lambda cluster: asking.explained(cluster, adapter, output)


def history(adapter: _Adapter, output: _Form = Form.TEXT) -> _Question:
    """List what happened to which version of an adapter serves."""
    from lorafleet.cli import asking

    return lambda cluster: asking.told(cluster, adapter, output)


def load_matrix(
    fleet: Annotated[
        str, typer.Argument(metavar="FLEET", help="The fleet.", show_default=False, autocompletion=_fleets)
    ],
    everything: Annotated[bool, typer.Option("--all", help="All of it, however large the fleet.")] = False,
    output: _Form = Form.TEXT,
) -> _Question:
    """Show which engine has which version loaded."""
    from lorafleet.cli import asking

    return lambda cluster: asking.loads(cluster, fleet, everything, output)


def promote(
    adapters: _Adapters = None,
    full: Annotated[bool, typer.Option("--full", help="Take all traffic at once, without further steps.")] = False,
    selector: _Selector = None,
    wait: _Wait = True,
    timeout: _Timeout = 30.0,
    output: _Form = Form.TEXT,
) -> _Question:
    """Take the next step of a rollout now."""
    verb = "promote-full" if full else "promote"
    return _act(verb, adapters or (), selector, None, timeout if wait else None, output)


def _of_several(verb: str, about: str) -> Callable[..., _Question]:
    """The command of a verb that takes several adapters and says nothing more."""

    def command(
        adapters: _Adapters = None,
        selector: _Selector = None,
        wait: _Wait = True,
        timeout: _Timeout = 30.0,
        output: _Form = Form.TEXT,
    ) -> _Question:
        return _act(verb, adapters or (), selector, None, timeout if wait else None, output)

    command.__name__, command.__doc__ = verb, about
    return command


pause = _of_several("pause", "Hold a rollout where it is.")
resume = _of_several("resume", "Let a paused rollout go on.")
abort = _of_several("abort", "Take a rollout back: all requests go to the stable version at once.")


def retry(
    adapter: _Adapter,
    wait: _Wait = True,
    timeout: _Timeout = 30.0,
    output: _Form = Form.TEXT,
) -> _Question:
    """Try a version again that was aborted or rolled back."""
    return _act("retry", (adapter,), None, None, timeout if wait else None, output)


def rollback(
    adapter: _Adapter,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="VERSION", help="A version that served before.", autocompletion=_versions),
    ] = None,
    wait: _Wait = True,
    timeout: _Timeout = 30.0,
    output: _Form = Form.TEXT,
) -> _Question:
    """Go back to the version that served before; with a rollout running, abort it."""
    return _act("rollback", (adapter,), None, to, timeout if wait else None, output)


def _act(
    verb: str,
    adapters: list[str] | tuple[str, ...],
    selector: str | None,
    argument: str | None,
    timeout: float | None,
    output: Form,
) -> _Question:
    from lorafleet.cli import asking

    return lambda cluster: asking.act(cluster, adapters, selector, verb, argument, timeout, output)


app = typer.Typer(rich_markup_mode=None)
for _command in (get, status, explain, history, load_matrix, promote, pause, resume, abort, retry, rollback):
    app.command(_command.__name__.replace("_", "-"))(_asking(_command))
