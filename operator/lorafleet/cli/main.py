"""The ``lorafleet`` command.

A command only reads its input and hands over; each imports late, so that ``sync`` starts fast and none pays for
another.
"""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from lorafleet.cli.form import Form
from lorafleet.cli.late import WithPeople

app = typer.Typer(
    cls=WithPeople,
    no_args_is_help=True,
    # A traceback with the values of variables could show a secret.
    pretty_exceptions_enable=False,
    # Brackets in a help text are brackets.
    rich_markup_mode=None,
    help="Fleets of LoRA adapters on vLLM in Kubernetes.",
)
store = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at a fleet's volume where it is mounted.")
app.add_typer(store, name="store")

_Form = Annotated[Form, typer.Option("--output", "-o", help="How to print.")]
_Root = Annotated[Path, typer.Argument(help="Where the fleet's claim is mounted.", show_default=False)]


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
    port: Annotated[
        int, typer.Option(envvar="LORAFLEET_PROGRESS_PORT", help="Where it says how far it is.", min=1, max=65535)
    ] = 8081,
) -> None:
    """Publish and remove versions on a fleet's volume, as the operator planned; runs in a Job."""
    from lorafleet.cli.sync import main

    raise typer.Exit(main(plan, Path(termination_log), log_level, port))


@app.command()
def operator() -> None:
    """Run one replica of the operator; its settings are LORAFLEET_* environment variables."""
    from lorafleet.cli.operator import run

    raise typer.Exit(run())


@app.command()
def router(
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Only write what Envoy starts with; a table that is there stays.")
    ] = False,
) -> None:
    """Configure the Envoy beside it for one fleet; its settings are LORAFLEET_ROUTER_* environment variables.

    The exit code is 2 when a setting is missing or wrong.
    """
    from lorafleet.cli.router import run

    raise typer.Exit(run(bootstrap))


@app.command()
def inspect(
    adapter: Annotated[
        str,
        typer.Argument(
            metavar="PATH|SOURCE",
            help="A folder or archive, hf://owner/name[@revision][/subfolder], s3://…, gs://…, az://…,"
            " oci://registry/repository:tag (or @sha256:…), http(s)://…#sha256=<hex>.",
            show_default=False,
        ),
    ],
    base_model: Annotated[
        list[str] | None, typer.Option(help="A name that the adapter may give its base model; may be repeated.")
    ] = None,
    base_config: Annotated[
        Path | None, typer.Option(help="The base model's config.json, to check shapes and count memory.")
    ] = None,
    max_lora_rank: Annotated[int | None, typer.Option(min=1, help="The engines' --max-lora-rank.")] = None,
    max_loras: Annotated[int | None, typer.Option(min=1, help="The engines' --max-loras.")] = None,
    engine_version: Annotated[str | None, typer.Option(help="The oldest vLLM of the fleet, such as 0.32.0.")] = None,
    tensor_parallel: Annotated[int, typer.Option(min=1, help="The engines' --tensor-parallel-size.")] = 1,
    max_size: Annotated[str, typer.Option(help="How large the adapter may be.")] = "64Gi",
    allow_pickle: Annotated[bool, typer.Option("--allow-pickle", help="Convert weights that are a pickle.")] = False,
    digest: Annotated[str | None, typer.Option(help="The digest that the adapter must have.")] = None,
    public_key: Annotated[Path | None, typer.Option(help="The key that must have signed it, in PEM.")] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="The authorities of the certificate that must have signed it, in PEM.")
    ] = None,
    trust_config: Annotated[
        Path | None, typer.Option(help="The trust root of sigstore, as a ClientTrustConfig in JSON.")
    ] = None,
    identity: Annotated[str | None, typer.Option(help="Who must have signed it.")] = None,
    issuer: Annotated[str | None, typer.Option(help="The OIDC issuer that vouched for --identity.")] = None,
    secret: Annotated[
        Path | None, typer.Option(help="A folder with a file for each key of the source's Secret.")
    ] = None,
    root: Annotated[Path | None, typer.Option(help="The folder that links of a local folder may not leave.")] = None,
    subfolder: Annotated[str | None, typer.Option(help="The adapter's folder in an archive or artifact.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="A mirror of the hub, or the endpoint of a store.")] = None,
    region: Annotated[str | None, typer.Option(help="The region of an s3:// bucket.")] = None,
    plain_http: Annotated[bool, typer.Option("--plain-http", help="Speak HTTP to the registry.")] = False,
    output: _Form = Form.TEXT,
) -> None:
    """Print all checks, the digest and the memory of an adapter; needs no cluster.

    The exit code is 0 when publishing would accept it, 1 when it would refuse it, 2 when the question cannot be asked.
    """
    from lorafleet.cli.address import Unusable
    from lorafleet.cli.inspect import run
    from lorafleet.cli.question import question

    try:
        asked = question(
            adapter,
            base_models=base_model or (),
            base_config=base_config,
            max_lora_rank=max_lora_rank,
            max_loras=max_loras,
            engine_version=engine_version,
            tensor_parallel=tensor_parallel,
            max_size=max_size,
            allow_pickle=allow_pickle,
            digest=digest,
            public_key=public_key,
            certificate=certificate,
            trust_config=trust_config,
            identity=identity,
            issuer=issuer,
            secret=secret,
            root=root,
            subfolder=subfolder,
            endpoint=endpoint,
            region=region,
            plain_http=plain_http,
        )
        raise typer.Exit(run(asked, output))
    except Unusable as error:
        _unusable(error)


@store.command("ls")
def store_ls(root: _Root, output: _Form = Form.TEXT) -> None:
    """List published versions, and what else is on the volume."""
    from lorafleet.cli.address import Unusable
    from lorafleet.cli.store import ls

    try:
        raise typer.Exit(ls(root, output))
    except Unusable as error:
        _unusable(error)


@store.command("verify")
def store_verify(
    root: _Root,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]…", help="Served names; all when left out.", show_default=False)
    ] = None,
    deep: Annotated[bool, typer.Option("--deep/--quick", help="Read every byte, or small files alone.")] = True,
    output: _Form = Form.TEXT,
) -> None:
    """Compare published versions with what was published; the exit code is 1 when one is damaged."""
    from lorafleet.cli.address import Unusable
    from lorafleet.cli.store import check

    try:
        raise typer.Exit(check(root, names or (), deep, output))
    except Unusable as error:
        _unusable(error)


@store.command("gc")
def store_gc(
    root: _Root,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    output: _Form = Form.TEXT,
) -> None:
    """Remove what dead Jobs left and blobs that no version shares; serving/ is never touched."""
    from lorafleet.cli.address import Unusable
    from lorafleet.cli.store import gc

    try:
        raise typer.Exit(gc(root, dry_run, output))
    except Unusable as error:
        _unusable(error)


def plugin() -> None:
    """``kubectl lorafleet …``: kubectl runs whatever is called ``kubectl-lorafleet``."""
    app(prog_name="kubectl lorafleet")


def _unusable(error: Exception) -> NoReturn:
    sys.stderr.write(f"error: {error}\n")
    raise typer.Exit(2)
