"""Pure decisions: weights, what must be published and loaded where, what may be removed. No I/O, no clock."""
