"""Which labelled cases a seed trains on: fewer shots are among more, every arm has the same."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.label_table import known_counts
from gliomoe.data_shards.order import seed_for
from gliomoe.finetune.splits import Case, Splits, make_splits

ATTEMPTS = 200
"""Draws tried until every marker has two classes, without which it cannot be learned."""


def draw(
    cases: Sequence[Case], shots: Sequence[int], folds: int, seed: int, tasks: Sequence[str]
) -> Mapping[int, Splits]:
    """Nested, stratified draws of labelled cases with their folds.

    Args:
        cases: All labelled cases.
        shots: Numbers of cases; each draw is made from the next larger one.
        folds: Of the cross-validation.
        seed: Equal seeds and cases give equal draws.
        tasks: Markers among them need two classes in every draw.

    Returns:
        Shots → splits.

    Raises:
        UsageError: If there are too few cases, or no draw has two classes of a marker.
    """
    if max(shots) > len(cases):
        raise UsageError(f"{max(shots)} shots, but {len(cases)} labelled cases; give more cases")
    for attempt in range(ATTEMPTS):
        draws = _nested(cases, shots, folds, seed_for(seed, "shots", attempt))
        lacking = [_lacking(cases, draws[number], tasks) for number in sorted(shots)]
        if not any(lacking):
            return draws
    number, task = next((n, t) for n, t in zip(sorted(shots), lacking, strict=True) if t)
    raise UsageError(
        f"task {task}: none of {ATTEMPTS} draws of {number} of {len(cases)} labelled cases has two "
        "classes of it; give more shots or cases, or leave it out of the tasks"
    )


def _nested(
    cases: Sequence[Case], shots: Sequence[int], folds: int, seed: int
) -> dict[int, Splits]:
    draws = {}
    left = list(cases)
    for number in sorted(set(shots), reverse=True):
        splits = make_splits(left, number, folds, seed)
        chosen = set(splits.keys)
        unused = tuple(sorted(case.key for case in cases if case.key not in chosen))
        draws[number] = replace(splits, unused=unused)
        left = [case for case in left if case.key in chosen]
    return draws


def _lacking(cases: Sequence[Case], splits: Splits, tasks: Sequence[str]) -> str:
    """The first marker of which the chosen cases have fewer than two classes; empty if none."""
    chosen = set(splits.keys)
    targets = [case.targets for case in cases if case.key in chosen]
    return next((t for t in tasks if t != "seg" and len(known_counts(targets, t)) < 2), "")
