"""Benchmarks of the operator: ``python -m bench NAME``. What each measures and the figures are in docs/benchmarks.md.

All run on a real control plane without a node. The operator is a process of its own, the fake engines are another, and
the benchmark's own process does the kubelet's part; so nobody's event loop is in anybody's figure, only the processor.
"""
