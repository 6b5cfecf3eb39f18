"""The one error of the path of bytes: why an adapter's files are not published, or not removed.

It carries a member of the closed set of reasons and a message for people. It decides nothing: what the controller does
next follows from the reason.
"""

from lorafleet.api.reasons import Reason

RETRIED = frozenset(
    {
        Reason.SOURCE_NOT_FOUND,
        # Perhaps somebody is still writing the folder.
        Reason.CONFIG_MISSING,
        Reason.WEIGHTS_MISSING,
        Reason.SOURCE_CHANGED,
        Reason.SOURCE_UNREACHABLE,
        # Credentials are mended outside of the spec.
        Reason.SOURCE_DENIED,
        Reason.SOURCE_CORRUPT,
        Reason.SECRET_INVALID,
        Reason.VOLUME_FULL,
        Reason.QUOTA_EXCEEDED,
        Reason.VOLUME_ERROR,
        Reason.SYNC_FAILED,
    }
)
"""Reasons that time can cure. All others are answers about the bytes and stay the same when asked again."""


class ArtifactError(Exception):
    """Files that cannot become, or stop being, a published adapter.

    ``message`` names the object, what was found, what was expected, and the next move; it holds nothing secret.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    @property
    def retry(self) -> bool:
        """Whether the same attempt can succeed later without a change of the spec."""
        return self.reason in RETRIED
