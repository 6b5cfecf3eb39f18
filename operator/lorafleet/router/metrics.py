"""The router process' own metrics. Names and labels only; who counts is elsewhere. Listed in docs/metrics.md.

What requests there were is Envoy's to count: see ``statistics``.
"""

from prometheus_client import Counter, Gauge, Histogram

ROUTES = Gauge("lorafleet_router_routes", "Adapters in the routing table.")
ENGINES = Gauge("lorafleet_router_engines", "Ready engines by what they get.", ["gets"])
CONFIG_WRITES = Counter("lorafleet_router_config_writes", "Configurations made for Envoy by result.", ["result"])
CONFIG_SECONDS = Histogram(
    "lorafleet_router_config_seconds",
    "From a change that was seen to Envoy running by it, in seconds.",
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
STALE_SECONDS = Gauge("lorafleet_router_stale_seconds", "Since when the API server was not heard; 0 while it is.")
