"""Case labels from a CSV or TSV table, in whatever spelling the table has.

Several columns or rows may speak of one label. Sequencing overrules immunohistochemistry (IHC),
which overrules a source that names no method; what is unknown overrules nothing. Sources of equal
rank that contradict each other leave the label unknown, and `settle` lists them. A column may be
about one gene or mutation (`IDH2`, `IDH1 R132H`): that it is absent does not contradict another.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.label_values import VALUES, Method, read_value, split_method
from gliomoe.data_shards.table import plain, read_rows

_CASE_COLUMN = re.compile(
    r"(?:(?:brats(?:20)?\d\d|brats|tcga|tcia)+|participant|subject|patient|case|study)+"
    r"(?:id|identifier|barcode)?|id|key|name"
)
_STATUS = r"(?:status|mutation|mutational|mutated|mutant|mut|result|type)*"
_EDITION = r"who|cns|20\d\d"
_COLUMNS = {
    "idh": rf"idh(?:12|1or2|1and2|(?P<part>[12]?(?:p?r\d{{3}}[a-z])?)){_STATUS}",
    "1p19q": r"(?:chr|chromosome)?1p(?:and)?19q(?:status|codeletion|codeleted|codel|deletion)*"
    r"|codel(?:etion)?(?:status)?",
    "tert": rf"tert(?:p|promoter)?{_STATUS}",
    "grade": rf"(?:{_EDITION}|tumou?r|glioma|neoplasm|histologic(?:al)?)*grade(?:{_EDITION})*"
    r"|who(?:20\d\d)?",
    "hgg": r"hgg|highgrade(?:glioma)?",
    "lgghgg": r"(?:lgg|hgg){2}|lowhighgrade",
    "subtype": r"idh(?:1p19q)?(?:codel)?subtype",
}
"""Kind of column, a key of `VALUES` → its names, as `plain` spells them and without a method."""

_METHOD_COLUMN = r"(?:method|assay|technique|source)"

Targets = dict[str, float]
"""Task → target (1 mutant, codeleted or HGG; WHO grade 2, 3, 4), NaN where unknown."""


@dataclass(frozen=True)
class Reading:
    """What one cell says of one task."""

    target: float
    """NaN where it says that nothing is known."""
    method: Method
    part: str
    """Gene or mutation that its column is about; empty: the marker as a whole."""
    line: int
    column: str
    value: str
    """As the table spells it."""

    def contradicts(self, other: "Reading") -> bool:
        """Whether both cannot be true: the absence of one mutation does not exclude another."""
        low, high = sorted((self, other), key=lambda reading: reading.target)
        return low.target != high.target and high.part.startswith(low.part)


Readings = dict[str, list[Reading]]
"""Task → all that a table says of it."""


@dataclass(frozen=True)
class Row:
    """One line of a label table."""

    line: int
    names: tuple[str, ...]
    """What its columns of names call the case; the data know one of them."""
    readings: Readings


@dataclass(frozen=True)
class Conflict:
    """Sources of equal rank that contradict each other about one label."""

    key: str
    task: str
    readings: tuple[Reading, ...]


def is_case_column(name: str) -> bool:
    """Whether a column, by its header, names the cases."""
    return _CASE_COLUMN.fullmatch(plain(name)) is not None


def read_label_table(path: Path) -> list[Row]:
    """All that a table says of its cases.

    Args:
        path: `.tsv`, or `.csv` with commas, semicolons or tabs; UTF-8, with a header line.

    Raises:
        UsageError: If the file is no such table, or values are neither labels nor said to be
            unknown; all of them are named, with their counts.
    """
    header, rows = read_rows(path, "label table")
    names = [i for i, name in enumerate(header) if is_case_column(name)]
    if not names:
        raise UsageError(
            f"{path}: no column names the cases; have {', '.join(header)}; "
            "call one participant_id, subject or case"
        )
    columns = _label_columns(header)
    methods = _method_columns(header)
    table, wrong = [], Counter[tuple[str, str, str]]()
    for line, row in rows:
        called = tuple(row[i].strip() for i in names if row[i].strip())
        if not called:
            raise UsageError(
                f"{path}, line {line}: no case name in column {header[names[0]]}; fill it in"
            )
        readings: Readings = {}
        for i, column in columns.items():
            try:
                targets, method = read_value(column.kind, row[i])
            except ValueError as error:
                wrong[header[i], row[i].strip(), str(error)] += 1
                continue
            told = [split_method(plain(row[j]))[1] for j in methods.get(column.kind, ())]
            method = next(filter(None, (method, column.method, *told)), Method.UNSPECIFIED)
            for task, target in targets.items():
                reading = Reading(target, method, column.part, line, header[i], row[i].strip())
                readings.setdefault(task, []).append(reading)
        table.append(Row(line, called, readings))
    if wrong:
        raise UsageError(f"{path}: {_wrong_values(wrong)}; correct them, n/a where unknown")
    return table


def read_labels(labels: Mapping[str, str], where: str) -> Targets:
    """Labels that a study carries, as `read_label_table` reads a row.

    Args:
        labels: Marker → what a table said of it; markers that are no task are passed over.
        where: The study, for messages.

    Raises:
        UsageError: If a value is neither a label nor said to be unknown.
    """
    targets: Targets = {}
    for marker, value in labels.items():
        if marker in VALUES:
            try:
                targets |= read_value(marker, value)[0]
            except ValueError as error:
                raise UsageError(f"{where}: {value!r} is no label of {marker}; {error}") from error
    return targets


def match_cases(
    table: Sequence[Row], cases: Mapping[str, str], path: Path
) -> tuple[dict[str, Readings], list[str]]:
    """What a table says of each study, by key, and the names of its rows that name none.

    A row may name a study's key or its subject, with or without the prefix `sub-`; a subject's row
    holds for all its sessions. Where nothing else fits, numbers may differ in leading zeros
    (UCSF-PDGM's table has 004 for the folder 0004). Rows of cases that are not there are no error,
    for one table often serves several folders.

    Args:
        table: What `read_label_table` gives.
        cases: Study key → subject.
        path: The table's file, for messages.

    Raises:
        UsageError: If no row names a study.
    """
    exact, loose = _by_name(cases, case_name), _by_name(cases, _loose_name)
    loose = {name: keys for name, keys in loose.items() if len({cases[k] for k in keys}) == 1}
    matched: dict[str, Readings] = {}
    unknown = []
    for row in table:
        found = [exact.get(case_name(name)) for name in row.names]
        found += [loose.get(_loose_name(name)) for name in row.names]
        keys = next((keys for keys in found if keys), [])
        if not keys:
            unknown.append(row.names[0])
        for key in keys:
            of_key = matched.setdefault(key, {})
            for task, readings in row.readings.items():
                of_key.setdefault(task, []).extend(readings)
    if not matched:
        raise UsageError(
            f"{path}: none of its cases is in the data: {shown(unknown)}; "
            f"the data hold {shown(list(cases))}; spell them alike"
        )
    return matched, unknown


def settle(matched: Mapping[str, Readings]) -> tuple[dict[str, Targets], list[Conflict]]:
    """One target for each label, by the rule of this module.

    Args:
        matched: Study key → what is said of it.

    Returns:
        Study key → task → target, and the labels that stay unknown by contradiction.
    """
    targets: dict[str, Targets] = {}
    conflicts = []
    for key, readings in matched.items():
        targets[key] = {}
        for task, said in readings.items():
            known = [one for one in said if not math.isnan(one.target)]
            kept = [
                one
                for one in known
                if not any(o.method > one.method and o.contradicts(one) for o in known)
            ]
            if any(a.contradicts(b) for a, b in combinations(kept, 2)):
                conflicts.append(Conflict(key, task, tuple(kept)))
                kept = []
            targets[key][task] = max((one.target for one in kept), default=math.nan)
    return targets, conflicts


def known_counts(targets: Iterable[Mapping[str, float]], task: str) -> dict[float, int]:
    """Target → number of cases that have it, ascending, without the unknown ones."""
    values = [case.get(task, math.nan) for case in targets]
    known = sorted(value for value in values if not math.isnan(value))
    return {value: known.count(value) for value in known}


def case_name(name: str) -> str:
    """A case's name as it is compared: lower case, dashes, without the prefix `sub-`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").removeprefix("sub-")


def shown(names: Sequence[str], most: int = 5) -> str:
    """The first names of many, for one line."""
    more = f" … ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@dataclass(frozen=True)
class _Column:
    """What a header tells of its column."""

    kind: str
    part: str
    method: Method


def _label_columns(header: Sequence[str]) -> dict[int, _Column]:
    """Position → column, of those that hold labels."""
    columns = {}
    for i, name in enumerate(header):
        spelt, method = split_method(plain(name))
        for kind, pattern in _COLUMNS.items():
            if found := re.fullmatch(pattern, spelt):
                columns[i] = _Column(kind, found.groupdict().get("part") or "", method)
    return columns


def _method_columns(header: Sequence[str]) -> dict[str, list[int]]:
    """Kind of column → positions of the columns that tell its method (`method`, `IDH assay`)."""
    found: dict[str, list[int]] = {}
    for i, name in enumerate(header):
        about = re.sub(rf"{_METHOD_COLUMN}$", "", plain(name))
        if about != plain(name):
            for kind, pattern in _COLUMNS.items():
                if not about or re.fullmatch(pattern, about):
                    found.setdefault(kind, []).append(i)
    return found


def _by_name(cases: Mapping[str, str], spell: Callable[[str], str]) -> dict[str, list[str]]:
    """Name, as `spell` spells it, of a study or its subject → keys."""
    keys_of: dict[str, list[str]] = {}
    for key, subject in cases.items():
        for name in {spell(key), spell(subject)}:
            keys_of.setdefault(name, []).append(key)
    return keys_of


def _loose_name(name: str) -> str:
    """A case's name without leading zeros of its numbers and the ending of UCSF-PDGM's folders."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", case_name(name).removesuffix("-nifti"))


def _wrong_values(wrong: Counter[tuple[str, str, str]]) -> str:
    """Values that are no labels, most frequent first."""
    each = [
        f"{column} {value!r} ({count} row{'s' if count > 1 else ''}; {hint})"
        for (column, value, hint), count in wrong.most_common(4)
    ]
    more = f" and {len(wrong) - len(each)} more values" if len(wrong) > len(each) else ""
    return f"{wrong.total()} cell(s) hold no label: {', '.join(each)}{more}"
