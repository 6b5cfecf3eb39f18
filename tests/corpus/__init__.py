"""Adapters that must not be served, and some that must: one list, `cases.CASES`, for every way of asking."""
