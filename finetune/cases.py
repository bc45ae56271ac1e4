"""The labelled cases of a shard set: labels matched to studies, leakage refused."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from gliomoe.data_shards.building.plan import BUILD
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.files import write_list
from gliomoe.data_shards.format.dataset import DATASET
from gliomoe.data_shards.identity.seen import Seen
from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.label_table import (
    Conflict,
    Readings,
    Targets,
    known_counts,
    match_cases,
    read_label_table,
    read_labels,
    settle,
    shown,
)
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.splits import Case

log = logging.getLogger(__name__)

CONFLICTS = "label_conflicts.csv"
"""Labels left unknown because their sources contradict each other, one line for each source."""


@dataclass(frozen=True)
class LabelledCase(Case):
    """A study of a shard set with at least one label of the tasks at hand."""

    position: int
    """Its position in the shard set."""
    looks: Seen
    """What it is known by."""
    genes: Tensor | None = None
    """[G, A] gene table, for models that take one."""


def labelled_cases(
    shards: ShardSet, labels: Path | None, tasks: Sequence[str]
) -> list[LabelledCase]:
    """Studies with a label for at least one task.

    Args:
        shards: The studies.
        labels: Label table; None for the labels that the studies carry themselves.
        tasks: `seg` and marker tasks; each needs at least one label among the cases.

    Raises:
        UsageError: If the table does not fit the studies, or a task has no label at all.
    """
    entries = [shards.entry(i) for i in range(len(shards))]
    table: Mapping[str, Targets] = {}
    if labels is not None:
        table = _told_targets(shards, labels, tasks)
    elif any(task != "seg" for task in tasks):
        table = _own_labels(shards)
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
            where = labels or "the data, and there is no label table (--labels)"
            what = "segmentation in the data" if task == "seg" else f"known label in {where}"
            help_ = "leave it out of --tasks"
            if task == "grade" and known_counts(table.values(), "hgg"):
                help_ = "LGG and HGG are what the task hgg learns: put it in --tasks instead"
            raise UsageError(f"task {task}: no case has a {what}; {help_}")
    labelled = {case.key for case in cases}
    if without := [entry.key for entry in entries if entry.key not in labelled]:
        log.info(
            "%d of %d studies carry labels; without: %s", len(cases), len(entries), shown(without)
        )
    return cases


def write_conflicts(out: Path, shards: ShardSet, labels: Path | None, tasks: Sequence[str]) -> None:
    """List the contradictions of a label table in `label_conflicts.csv`; no file if none."""
    conflicts: list[Conflict] = []
    if labels is not None:
        conflicts = settle(_matched(shards, labels)[0])[1]
    rows = [
        (c.key, c.task, f"{r.target:g}", r.method.name.lower(), r.line, r.column, r.value)
        for c in conflicts
        if c.task in tasks
        for r in c.readings
    ]
    columns = ("case", "task", "target", "method", "line", "column", "value")
    write_list(out / CONFLICTS, columns, rows)


def _told_targets(shards: ShardSet, labels: Path, tasks: Sequence[str]) -> dict[str, Targets]:
    """Study key → task → target by a table; what it says in vain is told."""
    matched, unknown = _matched(shards, labels)
    if unknown:
        log.warning(
            "%s: %d row(s) of cases that the data lack: %s", labels, len(unknown), shown(unknown)
        )
    targets, conflicts = settle(matched)
    if of_tasks := [f"{c.task} of {c.key}" for c in conflicts if c.task in tasks]:
        log.warning(
            "%s: %d label(s) left out, their sources disagree: %s",
            labels,
            len(of_tasks),
            shown(of_tasks),
        )
    return targets


def _matched(shards: ShardSet, labels: Path) -> tuple[dict[str, Readings], list[str]]:
    """What a table says of the studies, and its rows that name none."""
    if not shards.info.get("keep_ids", True):
        raise UsageError(
            f"{labels}: the shard set has hashed keys, which no table names; build it --keep-ids"
        )
    entries = (shards.entry(i) for i in range(len(shards)))
    subjects = {entry.key: entry.subject for entry in entries}
    return match_cases(read_label_table(labels), subjects, labels)


def require_labels(data: Path, tasks: Sequence[str]) -> None:
    """Refuse a raw folder that carries no label of marker tasks, before it is preprocessed.

    Raises:
        UsageError: With the tasks that lack one.
    """
    if not tasks or any((data / name).is_file() for name in (DATASET, BUILD)):
        return  # a shard set tells by itself, and at once
    studies = find_studies(data)
    carried = {task for s in studies for task in read_labels(s.labels, f"{data}, {s.subject}")}
    if missing := [task for task in tasks if task not in carried]:
        raise UsageError(
            f"{data}: carries no labels for {', '.join(missing)}; give a table with --labels, "
            "or choose tasks seg"
        )


def known_tasks(shards: ShardSet, labels: Path | None) -> set[str]:
    """Tasks for which some study has a label: in a table, or without one, of its own.

    Raises:
        UsageError: If the table does not fit the studies.
    """
    table = known_targets(shards, labels)
    known = {task for told in table.values() for task in told if not math.isnan(told[task])}
    return known | ({"seg"} if any(shards.entry(i).has_seg for i in range(len(shards))) else set())


def known_targets(shards: ShardSet, labels: Path | None) -> Mapping[str, Targets]:
    """Study key → marker task → target: of a table, or without one, of the studies' own labels.

    Raises:
        UsageError: If the table does not fit the studies.
    """
    return _own_labels(shards) if labels is None else settle(_matched(shards, labels)[0])[0]


def _own_labels(shards: ShardSet) -> dict[str, dict[str, float]]:
    """Study key → task → target, from the records of the studies."""
    records = (shards.record(i) for i in range(len(shards)))
    return {
        record["key"]: read_labels(record["labels"], f"study {record['key']}")
        for record in records
        if "labels" in record
    }


def warn_of_segmentations(shards: ShardSet, cases: Sequence[LabelledCase]) -> None:
    """Tell of masks that are empty, or numbered as if they were of another convention."""
    labels = {}
    for case in cases:
        entry = shards.entry(case.position)
        if entry.has_seg:
            seg = shards.read(case.position, sequences=entry.sequences[:1]).seg
            assert seg is not None
            labels[case.key] = set(seg.unique().tolist())
    if empty := [key for key, found in labels.items() if found == {0}]:
        log.warning("%d of %d segmentations are empty: %s", len(empty), len(labels), shown(empty))
    cavity = [key for key, found in labels.items() if 4 in found]
    if cavity and not any(3 in found for found in labels.values()):
        log.warning(
            "%d of %d segmentations have a resection cavity (label 4 since BraTS 2023) and none "
            "has enhancing tumour: if 4 is enhancing tumour, as up to BraTS 2022, number it 3: %s",
            len(cavity),
            len(labels),
            shown(cavity),
        )


def refuse_leakage(cases: Sequence[LabelledCase], seen: Seen, source: str) -> None:
    """Stop if a checkpoint has seen some of the cases, be it in another form.

    Raises:
        UsageError: With the names of the cases.
    """
    known = seen.which(case.looks for case in cases)
    if leaked := [case.key for case, is_known in zip(cases, known, strict=True) if is_known]:
        raise UsageError(
            f"{source} was trained on {len(leaked)} of {len(cases)} cases: {shown(leaked)}; "
            "leave them out, or say --allow-leakage True"
        )


def task_counts(
    cases: Sequence[LabelledCase], tasks: Sequence[str]
) -> Mapping[str, dict[float, int]]:
    """Task → target → number of cases."""
    return {task: known_counts((case.targets for case in cases), task) for task in tasks}
