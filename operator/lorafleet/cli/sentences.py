"""What each reason means, in a sentence, and what to do next, as a command. Data for ``explain``; no logic.

In a command ``{adapter}``, ``{fleet}``, ``{lorafleet}`` and ``{n}`` (the namespace's option) stand for the object's
own. A reason without a command needs none.
"""

from dataclasses import dataclass

STATUS = "{lorafleet} status {adapter} -w{n}"
FLEET = "{lorafleet} status fleet/{fleet}{n}"
EDIT = "kubectl edit loraadapter {adapter}{n}"
EDIT_FLEET = "kubectl edit specialistfleet {fleet}{n}"
RETRY = "{lorafleet} retry {adapter}{n}"
PROMOTE = "{lorafleet} promote {adapter}{n}"
RESUME = "{lorafleet} resume {adapter}{n}"
ABORT = "{lorafleet} abort {adapter}{n}"
HISTORY = "{lorafleet} history {adapter}{n}"
PODS = "kubectl get pods{n}"
JOBS = "kubectl get jobs,pods -l lorafleet.dev/fleet={fleet}{n}"


@dataclass(frozen=True, slots=True)
class Words:
    """A reason in words. ``commands``: a command and what it is for, the best one first."""

    sentence: str
    commands: tuple[tuple[str, str], ...] = ()


WATCH = (STATUS, "watch it")
OPERATOR = ("kubectl get pods -A -l app.kubernetes.io/name=lorafleet", "see whether the operator runs")
_LOOK_AT_FLEET = (FLEET, "see the engines")
_NEW_VERSION = (EDIT, "append a corrected version to spec.versions, better in Git")
_FIX_ENGINE = (_LOOK_AT_FLEET, (PODS, "find the engine's pod"))
_FIX_SOURCE = ((EDIT, "correct the source, as a new version, better in Git"), WATCH)
_FINAL = (_NEW_VERSION,)
_VOLUME = ((JOBS, "see the sync Job and its pod"), _LOOK_AT_FLEET)

WORDS: dict[str, Words] = {
    # On its way.
    "Serving": Words("The active version serves all requests, and nothing is to be done."),
    "SplitServing": Words(
        "The versions of spec.traffic serve at their fixed shares; nothing moves until spec.traffic changes.",
        ((EDIT, "change or remove spec.traffic, better in Git"), WATCH),
    ),
    "WaitingForFleet": Words(
        "The fleet that it names is not there, so nothing can be published or loaded.",
        (("{lorafleet} get fleets{n}", "see which fleets there are"),),
    ),
    "WaitingForEngines": Words("No engine of the fleet can be used yet.", _FIX_ENGINE),
    "Publishing": Words(
        "A sync Job fetches, checks and publishes the version; this passes by itself.",
        (WATCH, (JOBS, "see the sync Job")),
    ),
    "Loading": Words(
        "The version is published and engines are loading it; this passes by itself.",
        (WATCH, ("{lorafleet} load-matrix {fleet}{n}", "see which engines lack it")),
    ),
    "Probing": Words("Every engine is asked for the answers that the version's probe expects.", (WATCH,)),
    "Retiring": Words("An older entry of the same name has to leave first; this passes by itself.", (WATCH,)),
    "Deleting": Words(
        "It is being deleted: no traffic, then unloading, then its bytes; this passes by itself.", (WATCH,)
    ),
    "DeletionDeadline": Words(
        "It was released before its versions were gone; the fleet removes them later.", (_LOOK_AT_FLEET,)
    ),
    "Suspended": Words(
        "spec.suspend is set on it or on its fleet: what serves goes on serving, and nothing else happens.",
        ((EDIT, "set spec.suspend to false, better in Git"), _LOOK_AT_FLEET),
    ),
    "NothingServes": Words("No version has traffic, or no engine has the one that has.", _FIX_ENGINE),
    "Settled": Words("This aspect does not hold, and that is well."),
    "NoRoom": Words(
        "All places of the engines are taken; the version waits, and what serves goes on.",
        (_LOOK_AT_FLEET, ("{lorafleet} get adapters{n}", "find an adapter to retire")),
    ),
    # A rollout.
    "RolloutProgressing": Words("The rollout goes on by itself, step by step.", (WATCH, (ABORT, "take it back"))),
    "RolloutPaused": Words(
        "Somebody paused the rollout; the weights stay as they are until somebody resumes it.",
        ((RESUME, "go on"), (ABORT, "take it back")),
    ),
    "WaitingForPromotion": Words(
        "The step waits for a person.",
        ((PROMOTE, "take the next step"), (PROMOTE + " --full", "take all traffic at once"), (ABORT, "take it back")),
    ),
    "WaitingForTurn": Words(
        "Other rollouts of the fleet have to end first (spec.rollouts of the fleet); then it begins by itself.",
        (_LOOK_AT_FLEET, ("{lorafleet} get adapters{n}", "see what is rolling out")),
    ),
    "EngineRestarted": Words(
        "An engine came anew and lacks the version; the step's clock stands until it is loaded again.",
        (WATCH, _LOOK_AT_FLEET),
    ),
    "AnalysisUndecided": Words(
        "The analysis cannot decide: too few requests, or no data. Nothing passes and nothing fails meanwhile.",
        (
            (STATUS, "see what is missing"),
            (PROMOTE, "take the next step all the same"),
            (ABORT, "take it back"),
        ),
    ),
    "AnalysisFailed": Words(
        "What clients saw of the version is out of the bounds of the analysis.",
        (("{lorafleet} status {adapter}{n}", "see the measures"), _NEW_VERSION, (RETRY, "try the same version again")),
    ),
    "ProbeFailed": Words(
        "The version answers otherwise than its probe expects, so it got no request.",
        (_NEW_VERSION, (EDIT, "correct spec.probe if the expectation is wrong"), (RETRY, "try it again")),
    ),
    "ProgressDeadlineExceeded": Words(
        "The rollout made no progress within spec.rollout.progressDeadline.",
        (("{lorafleet} status {adapter}{n}", "see what held it"), (RETRY, "try again"), (RESUME, "if it is paused")),
    ),
    "RolloutAborted": Words(
        "The rollout was aborted, the stable version serves, and the aborted one never returns by itself.",
        (
            (EDIT, "set spec.activeVersion back or append a corrected version, better in Git"),
            (RETRY, "try the same version again"),
            (HISTORY, "see what happened"),
        ),
    ),
    "RolledBack": Words(
        "The version was rolled back, an earlier one serves, and the version never returns by itself.",
        (
            (EDIT, "set spec.activeVersion to the one that serves, better in Git"),
            (RETRY, "try the version again"),
            (HISTORY, "see what happened"),
        ),
    ),
    "Promoted": Words("The version came to serve all requests, and is the stable one now."),
    "Superseded": Words("Another version took the place of this one before it served all requests.", (WATCH,)),
    "Retried": Words("A person asked to try the version again.", (WATCH,)),
    # What was written.
    "InvalidSpec": Words("The operator cannot read the spec.", ((EDIT, "correct the field that the message names"),)),
    "FieldNotActedOn": Words("A field is set that this release does not act on; nothing has to be done."),
    "SourceNotSupported": Words("The version's source is of a kind that is not fetched.", _FINAL),
    "SourceInvalid": Words("The version's source cannot be what was meant.", _FINAL),
    # Where the files should be.
    "SourceNotFound": Words("The files are not where the source says; it is looked again.", _FIX_SOURCE),
    "SourceChanged": Words("Somebody wrote to the files while they were copied; it is tried again.", (WATCH,)),
    "SourceUnreachable": Words("The source does not answer; it is tried again.", (WATCH,)),
    "SourceDenied": Words(
        "The source refuses these credentials; the next try reads the Secret anew.",
        (("kubectl get secrets{n}", "find the source's Secret"), WATCH),
    ),
    "SourceCorrupt": Words("What arrived is not what the source says it has; it is tried again.", (WATCH,)),
    "SecretInvalid": Words(
        "The source's Secret is not there or lacks a key; the next try reads it anew.",
        (("kubectl get secrets{n}", "see which there are"), WATCH),
    ),
    "ConfigMissing": Words("There is no adapter_config.json; it is looked again.", _FIX_SOURCE),
    "WeightsMissing": Words("There are no weights; it is looked again.", _FIX_SOURCE),
    # What the files are.
    "ConfigInvalid": Words("adapter_config.json is not what PEFT writes.", _FINAL),
    "PeftTypeNotSupported": Words("The adapter is not a LoRA.", _FINAL),
    "FeatureNotSupported": Words("The adapter needs something that the engines cannot serve.", _FINAL),
    "BaseModelMismatch": Words(
        "The adapter was trained for another base model than the fleet's.",
        ((EDIT_FLEET, "add another name of the same weights to spec.baseModel.aliases"), _NEW_VERSION),
    ),
    "RankTooHigh": Words("The adapter's rank is above the engines' --max-lora-rank.", (_LOOK_AT_FLEET, _NEW_VERSION)),
    "WeightsInvalid": Words("The weights are damaged or do not fit the configuration.", _FINAL),
    "PickleRefused": Words(
        "The weights are a pickle, which can run code.",
        (_NEW_VERSION, (EDIT_FLEET, "or let the fleet convert: spec.artifacts.pickle: Convert")),
    ),
    "SizeLimitExceeded": Words("The adapter has too many bytes or files.", _FINAL),
    "UnsafePath": Words("Among the files is a link that leads out, or something that is no plain file.", _FINAL),
    "DigestMismatch": Words("The files are not those of the pinned digest.", _FINAL),
    "ArchiveInvalid": Words("The archive is damaged or of an unknown kind.", _FINAL),
    "ShapeMismatch": Words("A tensor does not fit the fleet's base model.", _FINAL),
    "WeightsNotFinite": Words("A tensor has NaN or Inf in it.", _FINAL),
    "DigestRequired": Words("The fleet's policy asks for a digest, and the entry has none.", _FINAL),
    "SignatureMissing": Words("The fleet's policy asks for a signature, and the files have none.", _FINAL),
    "SignatureInvalid": Words("The signature is not by whom the fleet trusts, or not of these files.", _FINAL),
    # What was found and keeps nothing from serving.
    "Checked": Words("Every check was made and found nothing."),
    "HasNoEffect": Words("The adapter changes nothing: the base model would answer the same.", _FINAL),
    "ShapesNotChecked": Words(
        "There is no config.json of the base model to check shapes against.",
        ((EDIT_FLEET, "give it spec.baseModel.config or spec.baseModel.volume"),),
    ),
    "PickleConverted": Words("The weights were a pickle and were converted; nothing has to be done."),
    "FilesDamaged": Words("Published files changed on the volume; they are being fetched again.", _VOLUME),
    # The volume and the Job.
    "VolumeFull": Words("There is no room on the fleet's claim.", _VOLUME),
    "QuotaExceeded": Words(
        "The version would exceed spec.storage.quota of the fleet.", (*_VOLUME, (EDIT_FLEET, "raise it"))
    ),
    "VolumeError": Words("The volume's file system refuses or fails.", _VOLUME),
    "SyncFailed": Words("The sync Job was refused, lost, or ended without a report; it is tried again.", _VOLUME),
    # What an engine said to a load.
    "LoadRejected": Words(
        "An engine will not load the version however often it is asked.", (_LOOK_AT_FLEET, _NEW_VERSION)
    ),
    "LoadFailed": Words("A load failed in a way that may pass; it is tried again.", (WATCH, _LOOK_AT_FLEET)),
    # An engine, or the fleet.
    "LoRADisabled": Words("Engines run without --enable-lora.", _FIX_ENGINE),
    "RuntimeUpdatingDisabled": Words("Engines run without VLLM_ALLOW_RUNTIME_LORA_UPDATING.", _FIX_ENGINE),
    "ResolverNotConfigured": Words("Engines cannot recover adapters by themselves after a restart.", _FIX_ENGINE),
    "ResolverDirectoryDiffers": Words("Engines look for adapters in another folder than the fleet's.", _FIX_ENGINE),
    "ApiKeyMissing": Words(
        "Engines have an API key and the fleet names none.", ((EDIT_FLEET, "name it"), *_FIX_ENGINE)
    ),
    "ApiKeyRejected": Words("Engines refuse the fleet's API key.", _FIX_ENGINE),
    "VersionNotSupported": Words("Engines run a vLLM that is too old.", _FIX_ENGINE),
    "BaseModelDiffers": Words("Engines serve another base model.", _FIX_ENGINE),
    "Unreachable": Words("Nothing answers at an engine's address.", _FIX_ENGINE),
    "Hung": Words("An engine takes connections and does not answer.", _FIX_ENGINE),
    "TooManyApiServers": Words("An engine runs several API servers, each of which knows other adapters.", _FIX_ENGINE),
    "ClaimedByTwoFleets": Words(
        "The selectors of two fleets match the same engine.",
        (("{lorafleet} get fleets{n}", "see the fleets"), *_FIX_ENGINE),
    ),
    "PortNotFound": Words(
        "There is no vLLM at the fleet's port.", ((EDIT_FLEET, "correct spec.engines.port"), *_FIX_ENGINE)
    ),
    "EnginesHealthy": Words("Every engine can be used, and nothing is to be done."),
    "EnginesUnhealthy": Words("Several engines are ill, of different causes.", _FIX_ENGINE),
    "NoEngines": Words(
        "No engine of the fleet can be used.", ((PODS, "see the pods"), (EDIT_FLEET, "correct the selector"))
    ),
}
