"""The operator's settings, from the environment. One place, so that the chart and the code agree on names."""

import os
import socket

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def _namespace() -> str:
    return os.environ.get("POD_NAMESPACE", "default")


def _identity() -> str:
    return f"{os.environ.get('POD_NAME', socket.gethostname())}_{os.getpid()}"


class Settings(BaseSettings):
    """Settings of ``lorafleet operator``; each is read from ``LORAFLEET_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="LORAFLEET_")

    namespace: str = Field(default_factory=_namespace, description="Where the Lease is.")
    identity: str = Field(default_factory=_identity, description="Who this replica is on the Lease.")
    lease_name: str = Field("lorafleet-operator", description="The Lease's name.")
    lease_duration: float = Field(15.0, gt=0, description="Seconds that a Lease lasts.")
    lease_renew: float = Field(10.0, gt=0, description="Seconds that a leader tries to renew.")
    lease_retry: float = Field(2.0, gt=0, description="Seconds between tries.")
    watch_namespaces: str = Field("", description="Namespaces to act in, by comma; all when empty.")
    http_port: int = Field(8080, description="The port of /healthz, /readyz and /metrics.")
    http_host: str = Field("0.0.0.0", description="The address of /healthz, /readyz and /metrics.")
    sync_image: str = Field("lorafleet:latest", description="The image of sync Jobs.")
    sync_pull_policy: str = Field("IfNotPresent", description="The pull policy of sync Jobs.")
    sync_jobs_per_fleet: int = Field(2, ge=1, le=16, description="Sync Jobs of one fleet at once.")
    sync_deadline: float = Field(3600.0, gt=0, description="Seconds that one sync Job may take.")
    sync_cpu: str = Field("100m", description="CPU request of sync Jobs.")
    sync_memory: str = Field("512Mi", description="Memory request and limit of sync Jobs.")
    resync: float = Field(90.0, ge=5, description="Seconds after which an engine's listing is read again.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The namespaces to act in; empty for all."""
        return tuple(name.strip() for name in self.watch_namespaces.split(",") if name.strip())
