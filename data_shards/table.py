"""Tables of text, CSV or TSV, with their line numbers, and the columns that hold labels."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from gliomoe.data_shards.errors import UsageError

LABEL_COLUMNS = {
    "idh": ["idh", "idhstatus", "idhmutation", "idhmutant", "idh1", "idh12"],
    "1p19q": ["1p19q", "1p19qstatus", "1p19qcodel", "1p19qcodeletion", "codel", "codeletion"],
    "tert": ["tert", "tertstatus", "tertp", "tertpromoter", "tertpromoterstatus", "tertmutation"],
    "grade": ["grade", "whograde", "who", "tumorgrade", "tumourgrade", "whocnsgrade"],
    "mgmt": ["mgmt", "mgmtstatus", "mgmtpromoter", "mgmtmethylation", "mgmtpromoterstatus"],
    "atrx": ["atrx", "atrxstatus", "atrxmutation"],
    "egfr": ["egfr", "egfrstatus", "egframplification"],
    "cdkn2a": ["cdkn2a", "cdkn2ab", "cdkn2astatus", "cdkn2adeletion"],
}
"""Marker → names of its column, spelt as `plain` spells them."""

MAX_LABEL = 64
"""Longest label, in characters; free text is none, for it may name a person."""

Row = tuple[int, list[str]]
"""Line number and cells."""


def read_rows(path: Path, what: str) -> tuple[list[str], list[Row]]:
    """The header and the rows that are not empty.

    Args:
        path: `.tsv`, or anything else with commas, semicolons or tabs; UTF-8.
        what: The kind of table, for messages.

    Raises:
        UsageError: If the file is no such table, or a row has more or fewer cells than the header.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: not a UTF-8 text table ({error.reason}); save it as CSV in UTF-8"
        ) from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(f"{path}: no such {what}") from error
    first = text.partition("\n")[0]
    delimiter = "\t" if path.suffix == ".tsv" else max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}; repair the table") from error
    if len(rows) < 2:
        raise UsageError(f"{path}: a {what} needs a header line and at least one case")
    header = rows[0][1]
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise UsageError(f"{path}, line {line}: {len(row)} cells, the header has {len(header)}")
    return header, rows[1:]


def plain(text: str) -> str:
    """Lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def label_columns(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Marker → position of its column, for those that have one.

    Raises:
        UsageError: If two columns give one marker.
    """
    columns = {}
    for marker, known in LABEL_COLUMNS.items():
        found = [i for i, name in enumerate(header) if plain(name) in known]
        if len(found) > 1:
            both = " and ".join(header[i] for i in found)
            raise UsageError(f"{path}: columns {both} both give {marker}; keep one")
        if found:
            columns[marker] = found[0]
    return columns


def row_labels(row: Sequence[str], columns: Mapping[str, int], where: str) -> dict[str, str]:
    """What a row says of each marker; nothing where the cell is empty or `n/a`.

    Raises:
        UsageError: If a cell holds free text.
    """
    labels = {}
    for marker, column in columns.items():
        value = row[column].strip()
        if len(value) > MAX_LABEL:
            raise UsageError(
                f"{where}: {len(value)} characters for {marker}, a label has at most {MAX_LABEL}"
            )
        if value and value.lower() != "n/a":
            labels[marker] = value
    return labels


def merge_labels(old: Mapping[str, str], new: Mapping[str, str], where: str) -> dict[str, str]:
    """Labels of two rows for one study.

    Raises:
        UsageError: If they contradict each other.
    """
    for marker, value in new.items():
        if old.get(marker, value) != value:
            raise UsageError(
                f"{where}: {marker} is {value!r} here and {old[marker]!r} in a row before; keep one"
            )
    return {**old, **new}
