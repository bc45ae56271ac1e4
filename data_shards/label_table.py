"""Case labels from a CSV or TSV table, in whatever spelling the table has.

A value is a known label, or said to be unknown (empty, `n/a`, `NOS`, …); anything else is refused
with its place, because a label read wrongly is worse than a label missed. `LGG` and `HGG` count as
unknown grades: each spans two WHO grades.
"""

import logging
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.table import LABEL_COLUMNS, label_columns, plain, read_rows

log = logging.getLogger(__name__)

ID_COLUMNS = [
    "participantid",
    "subject",
    "subjectid",
    "patient",
    "patientid",
    "case",
    "caseid",
    "id",
    "key",
    "study",
    "studyid",
    "brats21id",
    "bratsid",
    "brats2021",
    "name",
]
"""Names of the column with the case's name, lower case, letters and digits only."""

TASK_COLUMNS = {task: LABEL_COLUMNS[task] for task in ("idh", "1p19q", "tert", "grade")}
"""Task → names of its column, in the same spelling."""

UNKNOWN = frozenset(
    [
        "",
        "na",
        "nan",
        "nos",
        "nec",
        "none",
        "null",
        "unknown",
        "unk",
        "missing",
        "notavailable",
        "nottested",
        "indeterminate",
        "inconclusive",
    ]
)

_POSITIVE = ["1", "true", "yes", "pos", "positive"]
_NEGATIVE = ["0", "false", "no", "neg", "negative"]
_MUTANT = [*_POSITIVE, "mutant", "mut", "mutated", "mutation"]
_WILDTYPE = [*_NEGATIVE, "wildtype", "wild", "wt"]

VALUES: dict[str, dict[str, float]] = {
    "idh": {
        **dict.fromkeys([*_MUTANT, "idhmutant", "idhmut"], 1.0),
        **dict.fromkeys([*_WILDTYPE, "idhwildtype", "idhwt"], 0.0),
    },
    "1p19q": {
        **dict.fromkeys([*_POSITIVE, "codeleted", "codel", "codeletion", "deleted"], 1.0),
        **dict.fromkeys([*_NEGATIVE, "intact", "noncodeleted", "noncodel", "notcodeleted"], 0.0),
    },
    "tert": {**dict.fromkeys(_MUTANT, 1.0), **dict.fromkeys(_WILDTYPE, 0.0)},
    "grade": {
        **dict.fromkeys(["2", "ii", "g2"], 2.0),
        **dict.fromkeys(["3", "iii", "g3"], 3.0),
        **dict.fromkeys(["4", "iv", "g4", "gbm", "glioblastoma"], 4.0),
        **dict.fromkeys(["lgg", "hgg", "low", "high", "1", "i", "g1"], math.nan),
    },
}
"""Task → value as spelt (lower case, letters and digits only) → target. NaN is unknown."""


def read_label_table(path: Path) -> dict[str, dict[str, float]]:
    """Labels of every case of a table.

    Args:
        path: `.tsv`, or `.csv` with commas, semicolons or tabs; UTF-8, with a header line.

    Returns:
        Case name as the table spells it → task → target (1 mutant or codeleted; WHO grade 2, 3,
        4), NaN where unknown. Only tasks that have a column.

    Raises:
        UsageError: If the file is no such table, two rows contradict each other, or a value is
            neither a label nor said to be unknown.
    """
    header, rows = read_rows(path, "label table")
    names = [plain(name) for name in header]
    id_column = next((names.index(known) for known in ID_COLUMNS if known in names), None)
    if id_column is None:
        raise UsageError(
            f"{path}: no column names the cases; have {', '.join(header)}; "
            "call one participant_id, subject or case"
        )
    columns = {
        task: column for task, column in label_columns(path, header).items() if task in TASK_COLUMNS
    }
    table: dict[str, dict[str, float]] = {}
    for line, row in rows:
        case = row[id_column].strip()
        if not case:
            raise UsageError(f"{path}, line {line}: no case name in column {header[id_column]}")
        targets = {
            task: _target(task, row[column], f"{path}, line {line} ({case}), {header[column]}")
            for task, column in columns.items()
        }
        table[case] = _merge(table.get(case, {}), targets, f"{path}, line {line} ({case})")
    return table


def read_labels(labels: Mapping[str, str], where: str) -> dict[str, float]:
    """Labels that a study carries, as `read_label_table` reads a row.

    Args:
        labels: Marker → what a table said of it; markers that are no task are passed over.
        where: The study, for messages.

    Raises:
        UsageError: If a value is neither a label nor said to be unknown.
    """
    return {
        task: _target(task, labels[task], f"{where}, {task}")
        for task in TASK_COLUMNS
        if task in labels
    }


def match_cases(
    table: Mapping[str, dict[str, float]], cases: Mapping[str, str], path: Path
) -> dict[str, dict[str, float]]:
    """Labels by study key.

    A row may name a study's key or its subject, with or without the prefix `sub-`; a subject's row
    holds for all its sessions.

    Args:
        table: What `read_label_table` gives.
        cases: Study key → subject.
        path: The table's file, for the message.

    Raises:
        UsageError: If the table names cases that are not there.
    """
    keys_of: dict[str, list[str]] = {}
    for key, subject in cases.items():
        for name in {case_name(key), case_name(subject)}:
            keys_of.setdefault(name, []).append(key)
    if unknown := [name for name in table if case_name(name) not in keys_of]:
        shown = ", ".join(unknown[:5]) + (" …" if len(unknown) > 5 else "")
        raise UsageError(
            f"{path}: {len(unknown)} of {len(table)} cases are not in the data: {shown}; "
            f"the data hold {', '.join(list(cases)[:3])} … ({len(cases)} in all)"
        )
    matched: dict[str, dict[str, float]] = {}
    for name, targets in table.items():
        for key in keys_of[case_name(name)]:
            matched[key] = _merge(matched.get(key, {}), targets, f"{path}, case {name}")
    return matched


def _target(task: str, value: str, where: str) -> float:
    """One cell as a target."""
    spelt = plain(re.sub(r"\.0+\s*$", "", value))
    if task == "grade":
        spelt = re.sub(r"^(who|cns|grade)+", "", spelt)
    if spelt in UNKNOWN:
        return math.nan
    if spelt not in VALUES[task]:
        raise UsageError(
            f"{where}: {value.strip()!r} is not a label of {task}; "
            f"known: {', '.join(VALUES[task])}, or n/a"
        )
    return VALUES[task][spelt]


def _merge(old: Mapping[str, float], new: Mapping[str, float], where: str) -> dict[str, float]:
    """Labels of two rows for one case; a known label wins over an unknown one."""
    merged = dict(old)
    for task, value in new.items():
        before = merged.get(task, math.nan)
        if not (math.isnan(before) or math.isnan(value) or before == value):
            raise UsageError(f"{where}: two rows disagree on {task} ({before:g} and {value:g})")
        merged[task] = before if math.isnan(value) else value
    return merged


def known_counts(targets: Iterable[Mapping[str, float]], task: str) -> dict[float, int]:
    """Target → number of cases that have it, ascending, without the unknown ones."""
    values = [case.get(task, math.nan) for case in targets]
    known = sorted(value for value in values if not math.isnan(value))
    return {value: known.count(value) for value in known}


def case_name(name: str) -> str:
    """A case's name as it is compared: lower case, dashes, without the prefix `sub-`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").removeprefix("sub-")
