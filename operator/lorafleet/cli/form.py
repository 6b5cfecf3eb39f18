"""How commands print what programs read."""

from enum import StrEnum


class Form(StrEnum):
    """How a command prints."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"
