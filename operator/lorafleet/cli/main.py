"""The ``lorafleet`` command.

A command only reads its input and hands over; each imports late, so that ``sync`` starts fast and none pays for
another.
"""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Fleets of LoRA adapters on vLLM in Kubernetes.")


@app.command()
def version() -> None:
    """Print the version of lorafleet."""
    from lorafleet import __version__

    typer.echo(__version__)


@app.command()
def sync(
    plan: Annotated[str, typer.Option(envvar="LORAFLEET_PLAN", help="The plan, as JSON.", show_default=False)],
    termination_log: Annotated[
        str, typer.Option(envvar="TERMINATION_LOG", help="Where the report goes.")
    ] = "/dev/termination-log",
    log_level: Annotated[str, typer.Option(envvar="LORAFLEET_LOG_LEVEL", help="The lowest level to log.")] = "INFO",
) -> None:
    """Publish and remove versions on a fleet's volume, as the operator planned; runs in a Job."""
    from pathlib import Path

    from lorafleet.cli.sync import main

    raise typer.Exit(main(plan, Path(termination_log), log_level))


@app.command()
def operator() -> None:
    """Run one replica of the operator; its settings are LORAFLEET_* environment variables."""
    from lorafleet.cli.operator import run

    raise typer.Exit(run())
