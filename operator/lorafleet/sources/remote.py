"""What all sources behind a network say of it: one error for one kind of trouble, whoever found it.

Messages name the source by text that the caller made for people; nothing of a query, a header or an answer is in them.
"""

from urllib.parse import urlsplit

from lorafleet.api.reasons import Reason
from lorafleet.artifacts.errors import ArtifactError
from lorafleet.sources.secret import CA_KEY, Secret

_LATER = frozenset({408, 425, 429})


def unreachable(where: str, what: str) -> ArtifactError:
    """The error of what asking again soon may cure."""
    return ArtifactError(
        Reason.SOURCE_UNREACHABLE,
        f"{where} cannot be read now: {what}; it is tried again: look at the server and the network when this stays",
    )


def changed(where: str) -> ArtifactError:
    """The error that a file is another than the one that was listed."""
    return ArtifactError(
        Reason.SOURCE_CHANGED,
        f"{where} changed while it was read; expected files that nobody replaces: it is tried again from the start",
    )


def corrupt(where: str, what: str) -> ArtifactError:
    """The error that a source has not the bytes that it says it has."""
    return ArtifactError(
        Reason.SOURCE_CORRUPT,
        f"{where} is damaged at its source: {what}; it is tried again: upload it anew when this stays",
    )


def untrusted(where: str, why: str, secret: Secret) -> ArtifactError:
    """The error that a server's certificate is not trusted."""
    named = f"Secret {secret.name}" if secret.name else "a Secret that the source names"
    return ArtifactError(
        Reason.SECRET_INVALID,
        f"{where} has a certificate that is not trusted ({why}); expected one of the system's authorities or of the"
        f" source's Secret: put the authority's certificate under the key {CA_KEY} into {named}",
    )


def bad_certificate(where: str, why: str) -> ArtifactError:
    """The error that a server's certificate is of a trusted authority and no good."""
    return ArtifactError(
        Reason.SOURCE_DENIED,
        f"{where} has a certificate that is not valid ({why}): renew the certificate of the server, or name the server"
        " as its certificate does, in a new version",
    )


def refused(status: int, where: str, note: str = "", secret: Secret | None = None) -> ArtifactError:
    """The error for a status that is no success. ``note`` is put after what the server answered."""
    named = f"Secret {secret.name}" if secret is not None and secret.name else "a Secret that the source names"
    if status in (401, 403):
        return ArtifactError(
            Reason.SOURCE_DENIED,
            f"{where} may not be read (the server answered {status}{note}): look at the credentials in {named}, and at"
            " what they are allowed to read",
        )
    if status in (404, 410):
        return ArtifactError(
            Reason.SOURCE_NOT_FOUND,
            f"{where} does not exist or may not be seen (the server answered {status}{note}): put it there, or correct"
            " the source in a new version",
        )
    if status in (412, 416):
        return changed(where)
    if status in _LATER or status >= 500:
        return unreachable(where, f"the server answered {status}{note}")
    return ArtifactError(
        Reason.SOURCE_DENIED,
        f"{where} cannot be read: the server answered {status}{note}; expected 200: look at the address, and at the"
        f" credentials in {named}",
    )


def check_subfolder(subfolder: str | None, where: str) -> None:
    """Refuse a folder that is not below the root. Raises ArtifactError (SourceInvalid)."""
    if subfolder is not None and {"", ".", ".."} & set(subfolder.split("/")):
        raise ArtifactError(
            Reason.SOURCE_INVALID,
            f"{where} is read from subfolder {subfolder!r}; expected a relative path without empty parts, '.' and '..':"
            " correct it in a new version",
        )


def public(url: str) -> str:
    """An address as people may see it: without user, query and fragment, where tokens are."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
