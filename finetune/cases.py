"""The labelled cases of a shard set: labels matched to studies, leakage refused."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.indexed import ShardSet
from gliomoe.data_shards.seen import Seen
from gliomoe.finetune.label_table import known_counts, match_cases, read_label_table
from gliomoe.finetune.splits import Case

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelledCase(Case):
    """A study of a shard set with at least one label of the tasks at hand."""

    position: int
    """Its position in the shard set."""
    looks: Seen
    """What it is known by."""


def labelled_cases(
    shards: ShardSet, labels: Path | None, tasks: Sequence[str]
) -> list[LabelledCase]:
    """Studies with a label for at least one task.

    Args:
        shards: The studies.
        labels: Label table; None for no marker labels.
        tasks: `seg` and marker tasks; each needs at least one label among the cases.

    Raises:
        UsageError: If the table does not fit the studies, or a task has no label at all.
    """
    entries = [shards.entry(i) for i in range(len(shards))]
    table = {}
    if labels is not None:
        keys = {entry.key: entry.subject for entry in entries}
        table = match_cases(read_label_table(labels), keys, labels)
    cases = []
    for position, entry in enumerate(entries):
        known = table.get(entry.key, {})
        targets = {task: known.get(task, math.nan) for task in tasks if task != "seg"}
        if "seg" in tasks:
            targets["seg"] = 1.0 if entry.has_seg else math.nan
        if not all(math.isnan(value) for value in targets.values()):
            looks = Seen.of_record(shards.record(position))
            cases.append(LabelledCase(entry.key, entry.subject, targets, position, looks))
    for task in tasks:
        if not known_counts((case.targets for case in cases), task):
            what = "segmentation in the data" if task == "seg" else f"known label in {labels}"
            raise UsageError(f"task {task}: no case has a {what}; leave it out of --tasks")
    if len(cases) < len(entries):
        log.info("%d of %d studies carry labels", len(cases), len(entries))
    return cases


def refuse_leakage(cases: Sequence[LabelledCase], seen: Seen, source: str) -> None:
    """Stop if a checkpoint has seen some of the cases, be it in another form.

    Raises:
        UsageError: With the names of the cases.
    """
    known = seen.which(case.looks for case in cases)
    if leaked := [case.key for case, is_known in zip(cases, known, strict=True) if is_known]:
        shown = ", ".join(leaked[:5]) + (" …" if len(leaked) > 5 else "")
        raise UsageError(
            f"{source} was trained on {len(leaked)} of {len(cases)} cases: {shown}; "
            "leave them out, or say --allow-leakage True"
        )


def task_counts(
    cases: Sequence[LabelledCase], tasks: Sequence[str]
) -> Mapping[str, dict[float, int]]:
    """Task → target → number of cases."""
    return {task: known_counts((case.targets for case in cases), task) for task in tasks}
