"""``python -m lorafleet`` is the same as ``lorafleet``."""

from lorafleet.cli.main import app

app()
