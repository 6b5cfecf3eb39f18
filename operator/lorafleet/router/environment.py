"""The settings of ``lorafleet router``, from the environment. One place, so that the chart and the code agree on names.

What Envoy is told is in ``settings.Settings``; here it is read from ``LORAFLEET_ROUTER_<NAME>`` too, with sizes and
times as Kubernetes writes them.
"""

import os
import socket
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from lorafleet.api.model import quantity, seconds
from lorafleet.router.settings import Settings

_PREFIX = "LORAFLEET_ROUTER_"


def _seconds(value: Any) -> Any:
    """``90s`` as 90.0; a plain number stays."""
    text = str(value)
    return value if text.replace(".", "", 1).isdigit() else seconds(text)


def _bytes(value: Any) -> Any:
    """``10Mi`` as 10485760; a plain number stays."""
    return quantity(str(value))


Time = Annotated[float, Field(ge=0), BeforeValidator(_seconds)]


def _namespace() -> str:
    return os.environ.get("POD_NAMESPACE", "default")


def _name() -> str:
    return os.environ.get("POD_NAME", socket.gethostname())


class Environment(BaseSettings):
    """What the process itself needs."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX)

    fleet: str = Field(min_length=1, description="The SpecialistFleet whose requests it takes.")
    namespace: str = Field(default_factory=_namespace, description="The fleet's namespace.")
    name: str = Field(default_factory=_name, description="Who this router is, in its statistics.")
    directory: Path = Field(Path("/run/lorafleet"), description="What it shares with Envoy: all configuration.")
    http_host: str = Field("0.0.0.0", description="The address of /stats, /metrics, /healthz and /readyz.")
    http_port: int = Field(9091, ge=1, le=65535, description="Their port.")
    engine_key_file: Path | None = Field(None, description="The file with the engines' API key.")
    client_keys_directory: Path | None = Field(None, description="A folder with a file for each key of clients.")
    grace: Time = Field(300.0, description="How long requests may take to end when it is told to stop.")
    leave: Time = Field(10.0, description="How long it goes on taking new requests when it is told to stop.")
    log_level: str = Field("INFO", description="DEBUG, INFO, WARNING or ERROR.")


class EnvoyEnvironment(BaseSettings, Settings):
    """What Envoy is told, each field from ``LORAFLEET_ROUTER_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="ignore")

    max_body_bytes: Annotated[int, Field(ge=1024), BeforeValidator(_bytes)] = Settings().max_body_bytes
    request_timeout: Time = Settings().request_timeout
    idle_timeout: Time = Settings().idle_timeout
    body_timeout: Time = Settings().body_timeout
    connect_timeout: Annotated[float, Field(gt=0), BeforeValidator(_seconds)] = Settings().connect_timeout
    engine_idle_timeout: Annotated[float, Field(gt=0), BeforeValidator(_seconds)] = Settings().engine_idle_timeout
    drain_time: Time = Settings().drain_time
    eject_time: Annotated[float, Field(gt=0), BeforeValidator(_seconds)] = Settings().eject_time
