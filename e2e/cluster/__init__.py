"""A cluster to test and demonstrate on: yours, a kind one, or a one-node Kubernetes made here without Docker."""

from e2e.cluster.seam import Cluster, Volume, open_cluster
from e2e.cluster.shell import ClusterError

__all__ = ["Cluster", "ClusterError", "Volume", "open_cluster"]
