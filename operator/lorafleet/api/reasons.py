"""The closed set of reasons that conditions and events carry.

One member, one meaning, everywhere: status conditions, events, metrics labels, the sync Job's report and
the documentation use these words and no others. This module holds no messages and no logic.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a condition has its value; also the reason of the event that its transition emits."""

    # An adapter's way to an answer.
    SERVING = "Serving"
    WAITING_FOR_FLEET = "WaitingForFleet"
    WAITING_FOR_ENGINES = "WaitingForEngines"
    PUBLISHING = "Publishing"
    LOADING = "Loading"
    RETIRING = "Retiring"
    DELETING = "Deleting"
    DELETION_DEADLINE = "DeletionDeadline"
    SUSPENDED = "Suspended"
    NOTHING_SERVES = "NothingServes"
    SETTLED = "Settled"

    # A version on its way to all traffic, or taken back.
    ROLLOUT_PROGRESSING = "RolloutProgressing"
    ROLLOUT_PAUSED = "RolloutPaused"
    ROLLOUT_ABORTED = "RolloutAborted"
    ROLLED_BACK = "RolledBack"
    WAITING_FOR_TURN = "WaitingForTurn"
    WAITING_FOR_PROMOTION = "WaitingForPromotion"
    PROBING = "Probing"
    PROBE_FAILED = "ProbeFailed"
    ANALYSIS_FAILED = "AnalysisFailed"
    ANALYSIS_UNDECIDED = "AnalysisUndecided"
    ENGINE_RESTARTED = "EngineRestarted"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    SPLIT_SERVING = "SplitServing"
    PROMOTED = "Promoted"
    SUPERSEDED = "Superseded"
    RETRIED = "Retried"

    # What the user wrote.
    INVALID_SPEC = "InvalidSpec"
    FIELD_NOT_ACTED_ON = "FieldNotActedOn"
    SOURCE_NOT_SUPPORTED = "SourceNotSupported"

    # Where the files should be. Retried with backoff: they may come, or stop changing.
    SOURCE_NOT_FOUND = "SourceNotFound"
    SOURCE_CHANGED = "SourceChanged"
    SOURCE_UNREACHABLE = "SourceUnreachable"
    SOURCE_DENIED = "SourceDenied"
    SOURCE_CORRUPT = "SourceCorrupt"
    SECRET_INVALID = "SecretInvalid"
    CONFIG_MISSING = "ConfigMissing"
    WEIGHTS_MISSING = "WeightsMissing"

    # What the adapter's files are. Each is final for the version: new files need a new version.
    CONFIG_INVALID = "ConfigInvalid"
    PEFT_TYPE_NOT_SUPPORTED = "PeftTypeNotSupported"
    FEATURE_NOT_SUPPORTED = "FeatureNotSupported"
    BASE_MODEL_MISMATCH = "BaseModelMismatch"
    RANK_TOO_HIGH = "RankTooHigh"
    WEIGHTS_INVALID = "WeightsInvalid"
    PICKLE_REFUSED = "PickleRefused"
    SIZE_LIMIT_EXCEEDED = "SizeLimitExceeded"
    UNSAFE_PATH = "UnsafePath"
    DIGEST_MISMATCH = "DigestMismatch"
    SOURCE_INVALID = "SourceInvalid"
    ARCHIVE_INVALID = "ArchiveInvalid"
    SHAPE_MISMATCH = "ShapeMismatch"
    WEIGHTS_NOT_FINITE = "WeightsNotFinite"

    # What the fleet's policy asks for. Final for the version.
    DIGEST_REQUIRED = "DigestRequired"
    SIGNATURE_MISSING = "SignatureMissing"
    SIGNATURE_INVALID = "SignatureInvalid"

    # What was found and does not keep a version from serving.
    CHECKED = "Checked"
    HAS_NO_EFFECT = "HasNoEffect"
    SHAPES_NOT_CHECKED = "ShapesNotChecked"
    PICKLE_CONVERTED = "PickleConverted"
    FILES_DAMAGED = "FilesDamaged"

    # What happened to the volume or the Job. Retried with backoff.
    VOLUME_FULL = "VolumeFull"
    QUOTA_EXCEEDED = "QuotaExceeded"
    VOLUME_ERROR = "VolumeError"
    SYNC_FAILED = "SyncFailed"

    # What an engine said to a load.
    LOAD_REJECTED = "LoadRejected"
    LOAD_FAILED = "LoadFailed"
    NO_ROOM = "NoRoom"

    # What is wrong with an engine, each with its fix in the message.
    LORA_DISABLED = "LoRADisabled"
    RUNTIME_UPDATING_DISABLED = "RuntimeUpdatingDisabled"
    RESOLVER_NOT_CONFIGURED = "ResolverNotConfigured"
    RESOLVER_DIRECTORY_DIFFERS = "ResolverDirectoryDiffers"
    API_KEY_MISSING = "ApiKeyMissing"
    API_KEY_REJECTED = "ApiKeyRejected"
    VERSION_NOT_SUPPORTED = "VersionNotSupported"
    BASE_MODEL_DIFFERS = "BaseModelDiffers"
    UNREACHABLE = "Unreachable"
    HUNG = "Hung"
    TOO_MANY_API_SERVERS = "TooManyApiServers"
    CLAIMED_BY_TWO_FLEETS = "ClaimedByTwoFleets"
    PORT_NOT_FOUND = "PortNotFound"

    # A fleet as a whole.
    ENGINES_HEALTHY = "EnginesHealthy"
    ENGINES_UNHEALTHY = "EnginesUnhealthy"
    NO_ENGINES = "NoEngines"


def reason_of(text: str | None, otherwise: Reason) -> Reason:
    """The reason that a text names; another release may have written one that this one does not know."""
    try:
        return Reason(text or otherwise)
    except ValueError:
        return otherwise
