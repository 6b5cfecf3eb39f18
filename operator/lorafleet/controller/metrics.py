"""The operator's own metrics. Names and labels only; who counts is elsewhere. Listed in docs/metrics.md."""

from prometheus_client import Counter, Gauge, Histogram

RECONCILES = Counter("lorafleet_reconciles", "Reconciles by kind and result.", ["kind", "result"])
RECONCILE_SECONDS = Histogram(
    "lorafleet_reconcile_seconds",
    "Time of a reconcile, in seconds.",
    ["kind"],
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300),
)
QUEUE_DEPTH = Gauge("lorafleet_queue_depth", "Keys that wait for a worker.", ["kind"])
LOADS = Counter("lorafleet_engine_loads", "Load calls to engines by result.", ["namespace", "fleet", "result"])
UNLOADS = Counter("lorafleet_engine_unloads", "Unload calls to engines by result.", ["namespace", "fleet", "result"])
LOAD_SECONDS = Histogram(
    "lorafleet_engine_load_seconds",
    "Time of a successful load call, in seconds.",
    buckets=(0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 15, 60),
)
PROBES = Counter("lorafleet_probes", "Probes of versions on engines by result.", ["namespace", "fleet", "result"])
ROUTERS = Gauge("lorafleet_routers", "Routers that answered when they were last asked.", ["namespace", "fleet"])
ROLLOUTS = Gauge("lorafleet_rollouts", "Rollouts by state.", ["namespace", "fleet", "state"])
ABORTS = Counter("lorafleet_rollout_aborts", "Rollouts taken back, by reason.", ["namespace", "fleet", "reason"])
PROMOTIONS = Counter("lorafleet_rollout_promotions", "Versions that came to serve.", ["namespace", "fleet"])
WEIGHT = Gauge(
    "lorafleet_version_weight",
    "Share of requests in percent, of adapters with a rollout.",
    ["namespace", "fleet", "adapter", "version"],
)
QUERIES = Counter("lorafleet_analysis_queries", "Queries to Prometheus by result.", ["namespace", "fleet", "result"])
LISTS = Counter("lorafleet_engine_lists", "Listings of engines' models by result.", ["namespace", "fleet", "result"])
ENGINES = Gauge("lorafleet_engines", "Engines of a fleet by state.", ["namespace", "fleet", "state"])
ADAPTERS = Gauge("lorafleet_adapters", "Adapters of a fleet by state.", ["namespace", "fleet", "state"])
SYNC_JOBS = Counter("lorafleet_sync_jobs", "Sync Jobs by result.", ["namespace", "fleet", "result"])
DAMAGED = Gauge("lorafleet_damaged_versions", "Published versions whose files changed.", ["namespace", "fleet"])
WAITING = Gauge("lorafleet_versions_without_room", "Versions that engines have no place for.", ["namespace", "fleet"])
STORAGE = Gauge("lorafleet_storage_bytes", "The fleet's volume by state.", ["namespace", "fleet", "state"])
STATUS_WRITES = Counter("lorafleet_status_writes", "Status writes by kind and result.", ["kind", "result"])
LEADER = Gauge("lorafleet_leader", "1 while this replica holds the Lease.")
