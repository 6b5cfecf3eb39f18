"""What can be configured of a router. Read once at its start; only what `envoy.render` takes besides changes later."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0)]
Port = Annotated[int, Field(ge=1, le=65535)]

MIB = 1024 * 1024


class Settings(BaseModel):
    """How the router listens, what it accepts, and how it treats engines. Times are in seconds; 0 switches one off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Listening.
    address: str = "0.0.0.0"
    port: Port = 8080
    admin_port: Port = 9901
    """Envoy's own interface, on 127.0.0.1 only: statistics, readiness, draining. Never to be opened to others."""
    tls_directory: Path | None = None
    """A mounted TLS Secret (``tls.crt``, ``tls.key``); a change of its files is taken up without a restart."""
    check_keys: bool = False
    """Clients must send one of `Secrets.client_keys` as ``Authorization: Bearer`` or ``x-api-key``."""
    trusted_hops: int = Field(default=0, ge=0)
    """Proxies in front whose ``x-forwarded-for`` is believed."""
    concurrency: int | None = Field(default=None, ge=1)
    """Envoy's worker threads; None is one per core."""

    # Requests.
    max_body_bytes: int = Field(default=10 * MIB, ge=1024)
    session_header: str = Field(default="x-session-id", pattern=r"^[a-z0-9-]*$")
    """Requests with the same value here get the same version of an adapter; empty: no header does that."""
    sticky_user: bool = True
    """Without that header, the ``user`` field of the body does it."""
    affinity: int = Field(default=0, ge=0)
    """Requests for one version prefer the same so many engines; 0: the least loaded of all."""
    restore_model: bool = True
    """Answers name the model as the client did, not by its served name."""
    list_pinned: bool = False
    """``/v1/models`` lists ``name@version`` as well as ``name``."""

    # Time.
    request_timeout: Seconds = 0
    """From the end of a request to the end of its answer. Off: a long stream is no fault."""
    idle_timeout: Seconds = 600
    """Without one byte in either direction."""
    body_timeout: Seconds = 300
    """To receive a request as a whole."""
    connect_timeout: Annotated[float, Field(gt=0)] = 2
    engine_idle_timeout: Annotated[float, Field(gt=0)] = 4
    """Of unused connections to engines. Below vLLM's 5 seconds (VLLM_HTTP_TIMEOUT_KEEP_ALIVE), or they race."""
    drain_time: Seconds = 30
    """How long ``/drain_listeners?graceful`` goes on telling clients to leave."""

    # Engines.
    retries: int = Field(default=3, ge=0)
    """Further engines that are tried when one fails before the first byte of its answer."""
    max_connections: int = Field(default=1_000_000, ge=1)
    max_pending: int = Field(default=1_000_000, ge=1)
    max_requests: int = Field(default=1_000_000, ge=1)
    """In flight or waiting, over all engines; what is above is answered with 503 at once. vLLM queues by itself."""
    eject_after: int = Field(default=5, ge=0)
    """Connections that failed, or 502 to 504, one after another, until an engine is left out; 0: never."""
    eject_time: Annotated[float, Field(gt=0)] = 10
    eject_percent: int = Field(default=50, ge=0, le=99)
    """Of the engines, at most so many are left out at a time."""

    # Statistics.
    count_tokens: bool = True
    """Adds up ``usage`` of the answers that have it."""
    histograms: int = Field(default=200, ge=0)
    """Up to so many versions have histograms; above it only those that share an adapter's requests with another."""

    @property
    def tls(self) -> bool:
        """Whether clients speak TLS."""
        return self.tls_directory is not None


class Secrets(BaseModel):
    """What must not be in arguments, logs or errors. Neither field is shown when it is printed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client_keys: tuple[str, ...] = Field(default=(), repr=False)
    engine_key: str | None = Field(default=None, repr=False)
    """Sent to engines as ``Authorization: Bearer``."""
