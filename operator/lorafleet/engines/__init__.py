"""One vLLM server: the client of its API, what its answers mean, facts from its Pod, and what is wrong with it."""
