"""Envoy configuration from statuses; statistics back."""
