"""The names that tie the parts together: API group, labels, served names and places on the volume.

Every string that two processes must agree on is made here. This module does no I/O.
"""

from pathlib import PurePosixPath

GROUP = "lorafleet.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
ADAPTER_KIND = "LoRAAdapter"
ADAPTER_PLURAL = "loraadapters"
FLEET_KIND = "SpecialistFleet"
FLEET_PLURAL = "specialistfleets"
CATEGORY = "lorafleet"

FIELD_MANAGER = "lorafleet"
FINALIZER = f"{GROUP}/cleanup"
ACTION_ANNOTATION = f"{GROUP}/action"
STABLE_ANNOTATION = f"{GROUP}/stable"
"""On adapters, by the operator: the served name of the stable version, for when a status is lost."""

FLEET_LABEL = f"{GROUP}/fleet"
ROUTER_LABEL = f"{GROUP}/router"
"""On router pods: the fleet whose requests they take."""
ROUTER_STATS_PORT = 9091
"""Where a router answers ``/stats`` (JSON, for the operator), ``/metrics``, ``/healthz`` and ``/readyz``."""
COMPONENT_LABEL = f"{GROUP}/component"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"

SERVING = "serving"
STAGING = "staging"
BLOBS = "blobs"
TRASH = "trash"
IDS = "ids"

MANIFEST_FILE = "lorafleet.json"
"""The file in each published folder that says what it is and where it came from."""

DIGEST_PREFIX = "sha256:"
SHORT_DIGEST = 12


def short_digest(digest: str) -> str:
    """The first 12 hex digits of ``sha256:<hex>``, as they appear in served names."""
    return digest.removeprefix(DIGEST_PREFIX)[:SHORT_DIGEST]


def served_name(adapter: str, version: str, digest: str) -> str:
    """What engines call a version, and its path below ``serving/``: ``<adapter>/<version>-<digest12>``.

    The two are one string so that vLLM's filesystem resolver can load the version by itself after a restart
    (vLLM contract, filesystem resolver).
    """
    return f"{adapter}/{version}-{short_digest(digest)}"


def engine_path(mount_path: str, served: str) -> str:
    """The absolute path at which engines see a published version."""
    return str(PurePosixPath(mount_path) / served)
