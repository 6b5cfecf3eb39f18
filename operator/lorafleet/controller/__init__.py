"""The operator: watches, queue, observe, decide, apply, status, events, lease."""
