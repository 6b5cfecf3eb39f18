"""The volume: stage, check, publish, list, verify, remove."""
