"""Keys from mounted Secrets. Their values go into Envoy's files and nowhere else: into no log, error or argument."""

from pathlib import Path

from lorafleet.router.environment import Environment
from lorafleet.router.settings import Secrets


class SecretsError(Exception):
    """A key that there should be is not there; the message names its file."""


def read_secrets(environment: Environment) -> Secrets:
    """The keys as the files hold them now, without white space around them. Raises SecretsError."""
    folder, file = environment.client_keys_directory, environment.engine_key_file
    return Secrets(
        client_keys=tuple(_read(one) for one in _files(folder)) if folder else (),
        engine_key=_read(file) if file else None,
    )


def _files(folder: Path) -> list[Path]:
    """The keys of a mounted Secret; the kubelet's own entries are folders."""
    try:
        found = sorted(one for one in folder.iterdir() if one.is_file())
    except OSError as error:
        raise SecretsError(f"{folder}: {error.strerror}; mount the Secret with the clients' keys there") from None
    if not found:
        raise SecretsError(f"{folder} is empty: the Secret needs at least one key, or no client is let in")
    return found


def _read(file: Path) -> str:
    try:
        value = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretsError(f"{file} cannot be read as text: {type(error).__name__}") from None
    if not value or any(not character.isprintable() for character in value):
        raise SecretsError(f"{file} is empty or holds more than one line: expected one key")
    return value
