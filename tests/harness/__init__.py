"""What tests and benchmarks of the operator stand on: a real control plane, a kubelet's part for sync pods, replicas."""
