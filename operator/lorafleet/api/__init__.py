"""The two kinds, their names, conditions and reasons. Imports nothing else of lorafleet."""
