"""The commands for people who run fleets: ``get``, ``status``, ``explain``, ``history``, ``load-matrix``, the verbs.

Only what the shell sees of them is here; what they need is imported when one runs.
"""

from collections.abc import Callable
from typing import Annotated

import typer

from lorafleet.cli.form import Form


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
_Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="The namespace; that of the context.")]
_Adapter = Annotated[
    str, typer.Argument(metavar="ADAPTER", help="The adapter.", show_default=False, autocompletion=_names)
]
_Adapters = Annotated[
    list[str] | None, typer.Argument(metavar="[ADAPTER]…", help="Adapters.", show_default=False, autocompletion=_names)
]
_Selector = Annotated[
    str | None, typer.Option("--selector", "-l", help="Adapters with these labels, such as team=search.")
]
_Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the operator says what came of it.")]
_Timeout = Annotated[float, typer.Option("--timeout", min=0, help="How long to wait, in seconds.")]


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
    context: _Context = None,
    namespace: _Namespace = None,
    output: _Form = Form.TEXT,
) -> None:
    """List adapters and fleets with what serves and how it does."""
    from lorafleet.cli import asking

    raise typer.Exit(
        asking.answer(
            context, namespace, lambda cluster: asking.get(cluster, words or (), selector, everywhere, output)
        )
    )


def status(
    adapter: Annotated[
        str,
        typer.Argument(
            metavar="ADAPTER|fleet/NAME", help="The adapter or fleet.", show_default=False, autocompletion=_words
        ),
    ],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again at each change, until Ctrl-C.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is Ready (0) or Stalled (1).")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="How long to --wait, in seconds; exit code 3 then.")] = 300.0,
    context: _Context = None,
    namespace: _Namespace = None,
    output: _Form = Form.TEXT,
) -> None:
    """Show an adapter's rollout, or a fleet's engines, as they are now or as they change."""
    from lorafleet.cli import asking

    raise typer.Exit(
        asking.answer(
            context,
            namespace,
            lambda cluster: asking.status(cluster, adapter, watch=watch, wait=wait, timeout=timeout, form=output),
        )
    )


def explain(
    adapter: _Adapter, context: _Context = None, namespace: _Namespace = None, output: _Form = Form.TEXT
) -> None:
    """Say in words why an adapter is where it is, and what to do next."""
    from lorafleet.cli import asking

    raise typer.Exit(
        asking.answer(context, namespace, lambda cluster: asking.explained(cluster, adapter, namespace, output))
    )


def history(
    adapter: _Adapter, context: _Context = None, namespace: _Namespace = None, output: _Form = Form.TEXT
) -> None:
    """List what happened to which version of an adapter serves."""
    from lorafleet.cli import asking

    raise typer.Exit(asking.answer(context, namespace, lambda cluster: asking.told(cluster, adapter, output)))


def load_matrix(
    fleet: Annotated[
        str, typer.Argument(metavar="FLEET", help="The fleet.", show_default=False, autocompletion=_fleets)
    ],
    everything: Annotated[bool, typer.Option("--all", help="All of it, however large the fleet.")] = False,
    context: _Context = None,
    namespace: _Namespace = None,
    output: _Form = Form.TEXT,
) -> None:
    """Show which engine has which version loaded."""
    from lorafleet.cli import asking

    raise typer.Exit(
        asking.answer(context, namespace, lambda cluster: asking.loads(cluster, fleet, everything, output))
    )


def promote(
    adapters: _Adapters = None,
    full: Annotated[bool, typer.Option("--full", help="Take all traffic at once, without further steps.")] = False,
    selector: _Selector = None,
    wait: _Wait = True,
    timeout: _Timeout = 30.0,
    context: _Context = None,
    namespace: _Namespace = None,
    output: _Form = Form.TEXT,
) -> None:
    """Take the next step of a rollout now."""
    verb = "promote-full" if full else "promote"
    _act(verb, adapters or (), selector, None, timeout if wait else None, context, namespace, output)


def _of_several(verb: str, about: str) -> Callable[..., None]:
    """The command of a verb that takes several adapters and says nothing more."""

    def command(
        adapters: _Adapters = None,
        selector: _Selector = None,
        wait: _Wait = True,
        timeout: _Timeout = 30.0,
        context: _Context = None,
        namespace: _Namespace = None,
        output: _Form = Form.TEXT,
    ) -> None:
        _act(verb, adapters or (), selector, None, timeout if wait else None, context, namespace, output)

    command.__name__, command.__doc__ = verb, about
    return command


pause = _of_several("pause", "Hold a rollout where it is.")
resume = _of_several("resume", "Let a paused rollout go on.")
abort = _of_several("abort", "Take a rollout back: all requests go to the stable version at once.")


def retry(
    adapter: _Adapter,
    wait: _Wait = True,
    timeout: _Timeout = 30.0,
    context: _Context = None,
    namespace: _Namespace = None,
    output: _Form = Form.TEXT,
) -> None:
    """Try a version again that was aborted or rolled back."""
    _act("retry", (adapter,), None, None, timeout if wait else None, context, namespace, output)


def rollback(
    adapter: _Adapter,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="VERSION", help="A version that served before.", autocompletion=_versions),
    ] = None,
    wait: _Wait = True,
    timeout: _Timeout = 30.0,
    context: _Context = None,
    namespace: _Namespace = None,
    output: _Form = Form.TEXT,
) -> None:
    """Go back to the version that served before; with a rollout running, abort it."""
    _act("rollback", (adapter,), None, to, timeout if wait else None, context, namespace, output)


def _act(
    verb: str,
    adapters: list[str] | tuple[str, ...],
    selector: str | None,
    argument: str | None,
    timeout: float | None,
    context: str | None,
    namespace: str | None,
    output: Form,
) -> None:
    from lorafleet.cli import asking

    raise typer.Exit(
        asking.answer(
            context, namespace, lambda cluster: asking.act(cluster, adapters, selector, verb, argument, timeout, output)
        )
    )


app = typer.Typer(rich_markup_mode=None)
for _command in (get, status, explain, history, load_matrix, promote, pause, resume, abort, retry, rollback):
    app.command(_command.__name__.replace("_", "-"))(_command)
