"""Groups in which figures are given: sequence set, protocol, grade.

Notable: the protocol is a column `protocol` of the label table, or of the data's own
`participants.tsv`; the grade is known to the label table or the data, whether or not the run has
learned it.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from gliomoe.data_shards.label_table import (
    ID_COLUMNS,
    case_name,
    match_cases,
    read_label_table,
    read_labels,
)
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.table import plain, read_rows
from gliomoe.finetune.cases import LabelledCase

UNKNOWN = {
    "sequences": "",
    "protocol": "no table of the cases has a column protocol",
    "grade": "no case has a known grade",
}
"""Grouping → why there may be no group at all; cases always have sequences."""

Groups = Mapping[str, str | None]
"""Grouping → the group of a case; None if it is not known."""


def find_groups(
    shards: ShardSet, cases: Sequence[LabelledCase], labels: Path | None, data: Path
) -> dict[str, Groups]:
    """Study key → groups of the case.

    Args:
        shards: The studies.
        cases: Cases among them.
        labels: Their label table, if there is one.
        data: Where they come from; its `participants.tsv` is looked at.

    Raises:
        UsageError: If a table cannot be read.
    """
    protocols = _protocols([path for path in (labels, data / "participants.tsv") if path])
    grades = _grades(shards, labels)
    return {
        case.key: {
            "sequences": "+".join(shards.entry(case.position).sequences),
            "protocol": protocols.get(case_name(case.key), protocols.get(case_name(case.subject))),
            "grade": grades.get(case.key),
        }
        for case in cases
    }


def _protocols(tables: Sequence[Path]) -> dict[str, str]:
    """Case name → protocol, from the first table that has the column."""
    for path in tables:
        if not path.is_file():
            continue
        header, rows = read_rows(path, "table of cases")
        names = [plain(name) for name in header]
        known = [names.index(name) for name in ID_COLUMNS if name in names]
        if "protocol" in names and known:
            column = names.index("protocol")
            values = {case_name(row[known[0]]): row[column].strip() for _, row in rows}
            return {name: value for name, value in values.items() if value not in ("", "n/a")}
    return {}


def _grades(shards: ShardSet, labels: Path | None) -> dict[str, str]:
    """Study key → grade, where it is known."""
    if labels is not None:
        entries = [shards.entry(i) for i in range(len(shards))]
        subjects = {entry.key: entry.subject for entry in entries}
        known = match_cases(read_label_table(labels), subjects, labels)
    else:
        records = [shards.record(i) for i in range(len(shards))]
        known = {r["key"]: read_labels(r.get("labels", {}), f"study {r['key']}") for r in records}
    grades = {key: targets.get("grade", math.nan) for key, targets in known.items()}
    return {key: f"{grade:g}" for key, grade in grades.items() if not math.isnan(grade)}
