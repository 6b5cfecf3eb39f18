"""What a router routes by: frozen data between the watches that gather it and the configuration made from it.

Nothing here knows Envoy or Kubernetes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Target:
    """A served name and its share of an adapter's requests, in percent."""

    served: str
    weight: int


@dataclass(frozen=True)
class Route:
    """One adapter: where the requests for its name go, and the versions that may be asked for by ``name@version``.

    ``targets`` sum up to 100 or are empty: then nothing serves. ``pinned`` maps version names to served names that
    engines have loaded.
    """

    adapter: str
    targets: tuple[Target, ...] = ()
    pinned: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EngineAddress:
    """A Ready engine. ``adapters``: it has every adapter with traffic but those in ``missing``, and may get them."""

    name: str
    ip: str
    port: int
    adapters: bool = True
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RoutingTable:
    """Everything a router knows: adapters by name, engines by pod name, and the names of the base model."""

    routes: Mapping[str, Route] = field(default_factory=dict)
    engines: Mapping[str, EngineAddress] = field(default_factory=dict)
    base_names: tuple[str, ...] = ()
    """What the engines call the base model (--served-model-name, else --model): passed through unchanged."""
