"""Groups in which figures are given: sequence set, protocol, grade.

Notable: the protocol is a column `protocol` of the label table, or of the data's own
`participants.tsv`; the grade is that of WHO, whether the run learns it or not.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from gliomoe.data_shards.label_table import case_name, is_case_column
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.table import plain, read_rows
from gliomoe.finetune.cases import LabelledCase, known_targets

UNKNOWN = {
    "sequences": None,
    "protocol": "no table of the cases has a column protocol",
    "grade": "no case has a known grade",
}
"""Grouping → why there may be no group at all; every case has sequences."""

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
    tables = [path for path in (labels, data / "participants.tsv") if path and path.is_file()]
    targets = known_targets(shards, labels)
    protocols = next(filter(None, map(_protocols, tables)), {})
    groups: dict[str, Groups] = {}
    for case in cases:
        grade = targets.get(case.key, {}).get("grade", math.nan)
        groups[case.key] = {
            "sequences": "+".join(shards.entry(case.position).sequences),
            "protocol": protocols.get(case_name(case.key), protocols.get(case_name(case.subject))),
            "grade": None if math.isnan(grade) else f"{grade:g}",
        }
    return groups


def _protocols(path: Path) -> dict[str, str]:
    """Case name, as any column of names has it → protocol; empty if a table has no such column."""
    header, rows = read_rows(path, "table of cases")
    columns = [plain(name) for name in header]
    if "protocol" not in columns:
        return {}
    names = [i for i, name in enumerate(header) if is_case_column(name)]
    protocol = columns.index("protocol")
    values = {case_name(row[i]): row[protocol].strip() for _, row in rows for i in names}
    return {name: value for name, value in values.items() if value not in ("", "n/a")}
