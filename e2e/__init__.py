"""The whole of lorafleet against a real cluster and a real vLLM."""
