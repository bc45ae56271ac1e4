"""Checkpoints of a run: written whole, found again, taken up by other numbers of processes."""
