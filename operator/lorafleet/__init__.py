"""lorafleet: fleets of LoRA adapters on vLLM in Kubernetes."""

__version__ = "0.1.0"
