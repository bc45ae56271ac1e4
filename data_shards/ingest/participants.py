"""`participants.tsv` of a BIDS data set: the labels of its subjects."""

from pathlib import Path

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.table import label_columns, merge_labels, plain, read_rows, row_labels


def read_participants(path: Path) -> dict[str, dict[str, str]]:
    """Subject, spelt as its folder → marker → label. Empty without a table or columns of labels.

    Raises:
        UsageError: If there are columns of labels and the table cannot be read.
    """
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        if not label_columns(path, file.readline().rstrip("\r\n").split("\t")):
            return {}  # a table of no use here need not be in order
    header, rows = read_rows(path, "table of participants")
    columns = label_columns(path, header)
    names = [plain(name) for name in header]
    if "participantid" not in names:
        raise UsageError(f"{path}: has no column participant_id, only {', '.join(header)}")
    subjects: dict[str, dict[str, str]] = {}
    for line, row in rows:
        where = f"{path}, line {line}"
        subject = f"sub-{row[names.index('participantid')].strip().removeprefix('sub-')}"
        labels = row_labels(row, columns, where)
        subjects[subject] = merge_labels(subjects.get(subject, {}), labels, where)
    return subjects
