"""Checks of the run's folder: one folder for all, writable, with room."""

from collections.abc import Sequence
from pathlib import Path

from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.planning.plan import size
from gliomoe.pretrain.planning.preflight.facts import Facts
from gliomoe.pretrain.planning.preflight.finding import Finding, ranks


def check_folder(facts: Sequence[Facts], folder: Path) -> Finding:
    """Every process reads what rank 0 writes and can write itself."""
    barred = [fact for fact in facts if fact.folder]
    if barred:
        return Finding(
            "folder",
            "failed",
            f"{ranks([fact.rank for fact in barred])}: {barred[0].folder}",
            "give run.out a folder that all hosts share and may write to",
            UsageError,
        )
    return Finding("folder", "ok", f"{folder} is shared and writable")


def check_space(facts: Sequence[Facts], needed: int) -> Finding:
    """Room for the checkpoints that are still to be written.

    Args:
        facts: Of all processes; rank 0's disk counts.
        needed: Bytes.
    """
    free = facts[0].free_bytes
    if free < needed:
        return Finding(
            "space",
            "failed",
            f"{size(free)} free, the checkpoints need {size(needed)}",
            "free some, choose another run.out, or lower run.keep",
            UsageError,
        )
    return Finding("space", "ok", f"{size(free)} free, the checkpoints need {size(needed)}")
