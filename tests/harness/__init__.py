"""What tests and benchmarks of the operator stand on: a control plane, a kubelet's part for sync pods, replicas."""
