"""The ``lorafleet`` command, and ``python -m lorafleet``.

A Job's process is told everything by its environment, and many of them publish a few small adapters each, so how long
one takes to start counts: without the library that reads command lines, without a search for garbage among what is
imported and stays, and without a look at every installed package for plugins of pydantic.
"""

import gc
import os
import sys


def main() -> None:
    """Run the command of this process. Raises SystemExit."""
    if sys.argv[1:] == ["sync"] and os.environ.get("LORAFLEET_PLAN"):
        _sync()
    from lorafleet.cli.main import app

    app()


def _sync() -> None:
    """Run a Job; returns when something in the environment is not as it must be, which the command line says."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()
    from lorafleet.cli.sync import from_environment

    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()
    code = from_environment(os.environ)
    if code is not None:
        sys.exit(code)


if __name__ == "__main__":
    main()
