"""A real vLLM on the CPU: its environment, a tiny model with adapters for it, and a server as a plain process."""
