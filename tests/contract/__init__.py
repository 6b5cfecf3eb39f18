"""vLLM's contract: one suite for the fake and for a real server, so that the fake cannot drift."""
