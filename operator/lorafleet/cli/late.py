"""Commands that are imported when somebody asks for one: ``sync`` and ``operator`` start without those for people."""

from functools import cached_property
from typing import Any

import typer
from typer.core import TyperGroup


class WithPeople(TyperGroup):
    """The commands of ``lorafleet``, and after them those of ``people``."""

    @cached_property
    def _late(self) -> dict[str, Any]:
        from lorafleet.cli.people import app

        return dict(typer.main.get_group(app).commands)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands, those of people first."""
        return [*self._late, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name."""
        return super().get_command(ctx, cmd_name) or self._late.get(cmd_name)
