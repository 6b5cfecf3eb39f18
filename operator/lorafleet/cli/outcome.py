"""How commands that ask a cluster end: four exit codes for scripts, and the errors that carry one.

A text names the object, what was found, what was expected, and the next move; never an address with a password, never
a credential, never a traceback.
"""

import sys
from enum import IntEnum


class Exit(IntEnum):
    """The exit codes; docs/cli.md says them to people."""

    OK = 0
    NO = 1
    """What was asked for is not so, is not there, or was refused."""
    CANNOT_ASK = 2
    """The question cannot be asked: usage, no cluster, no rights."""
    TIMEOUT = 3
    """It was not so within the time that was given."""


class Ended(Exception):
    """A command that ends here, with a text for standard error."""

    def __init__(self, code: Exit, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def no(text: str) -> Ended:
    """What was asked for is not so."""
    return Ended(Exit.NO, text)


def cannot_ask(text: str) -> Ended:
    """The question cannot be asked."""
    return Ended(Exit.CANNOT_ASK, text)


def program() -> str:
    """What the user types before a command, for the next moves that messages name."""
    name = sys.argv[0].rpartition("/")[2] if sys.argv else ""
    return "kubectl lorafleet" if name.startswith("kubectl") else "lorafleet"
