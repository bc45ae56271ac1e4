"""A manifest: a CSV or TSV table with one line for each series.

Columns `subject`, `sequence` and `path` (from the manifest's folder), as wanted `session`, `seg`
(path of the study's segmentation, which may also be a line of its own with the sequence `seg`) and
labels (`idh`, `1p19q`, `tert`, `grade` and the like). What a table says is taken at its word, so
anything amiss in it is an error with its line; nothing is left out in silence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.ingest.names import in_order, second
from gliomoe.data_shards.nifti import is_nifti
from gliomoe.data_shards.sequences import canonical_sequence
from gliomoe.data_shards.study import LeftOut, RawStudy
from gliomoe.data_shards.table import label_columns, merge_labels, plain, read_rows, row_labels

SUFFIXES = (".csv", ".tsv")

_COLUMNS = {
    "subject": ("subject", "subjectid", "participantid", "patient", "patientid", "case", "caseid"),
    "session": ("session", "sessionid", "visit", "timepoint"),
    "sequence": ("sequence", "modality", "contrast"),
    "path": ("path", "file", "filename", "filepath"),
    "seg": ("seg", "segmentation", "segpath"),
}
"""What is needed → names of its column, spelt as `plain` spells them."""

_REQUIRED = ("subject", "sequence", "path")
_SEG = ("seg", "segmentation")


@dataclass
class _Collected:
    """What the lines so far say of one study."""

    series: dict[str, Path] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    """What a line gave → its number."""
    seg: Path | None = None
    labels: dict[str, str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def find_manifest(source: Path) -> list[RawStudy]:
    """The studies of a table, in its order.

    Raises:
        UsageError: If the table is none, lacks a column or a path, or contradicts itself.
    """
    header, rows = read_rows(source, "manifest")
    columns = _columns(source, header)
    label_of = label_columns(source, header)
    studies: dict[tuple[str, str | None], _Collected] = {}
    files: dict[Path, int] = {}
    for line, row in rows:
        where = f"{source}, line {line}"
        cells = {name: row[column].strip() for name, column in columns.items()}
        if empty := [name for name in _REQUIRED if not cells[name]]:
            raise UsageError(
                f"{where}: no {empty[0]}; fill in the column {header[columns[empty[0]]]}"
            )
        study = studies.setdefault((cells["subject"], cells.get("session") or None), _Collected())
        path = _file(source, cells["path"], where)
        if path in files:
            raise UsageError(f"{where}: {cells['path']} is in line {files[path]} already")
        files[path] = line
        _add(study, cells["sequence"], path, line, where)
        if cells.get("seg"):
            _add_seg(study, _file(source, cells["seg"], where), line, where)
        study.labels = merge_labels(study.labels, row_labels(row, label_of, where), where)
    return [
        RawStudy(
            subject=subject,
            session=session,
            series=in_order(study.series),
            seg=study.seg,
            source=source,
            layout="csv",
            labels=study.labels,
            left_out=tuple(study.left_out),
        )
        for (subject, session), study in studies.items()
    ]


def _columns(source: Path, header: Sequence[str]) -> dict[str, int]:
    """What is needed → position of its column."""
    names = [plain(name) for name in header]
    found = {
        what: next((i for i, name in enumerate(names) if name in known), None)
        for what, known in _COLUMNS.items()
    }
    if missing := [what for what in _REQUIRED if found[what] is None]:
        raise UsageError(
            f"{source}: a manifest needs the columns {', '.join(_REQUIRED)}; "
            f"{', '.join(missing)} is missing among {', '.join(header)}"
        )
    return {what: column for what, column in found.items() if column is not None}


def _file(source: Path, cell: str, where: str) -> Path:
    """The file that a cell names."""
    path = source.parent / cell
    if path.is_dir():
        raise UsageError(f"{where}: {cell} is a folder; name one NIfTI file")
    if not path.is_file():
        raise UsageError(f"{where}: no such file {cell}; paths start at the manifest's folder")
    if not is_nifti(path):
        raise UsageError(f"{where}: {cell} is no .nii or .nii.gz file")
    return path


def _add(study: _Collected, spelt: str, path: Path, line: int, where: str) -> None:
    """Take the series of a line."""
    if plain(spelt) in _SEG:
        _add_seg(study, path, line, where)
        return
    sequence = canonical_sequence(spelt)
    if sequence not in study.series:
        study.series[sequence] = path
        study.lines[sequence] = line
    elif sequence == "other":
        study.left_out.append(second(path, sequence, study.series[sequence]))
    else:
        raise UsageError(
            f"{where}: a second {sequence}, line {study.lines[sequence]} has one; keep one"
        )


def _add_seg(study: _Collected, path: Path, line: int, where: str) -> None:
    """Take the segmentation of a line; every line of a study may name the same."""
    if study.seg not in (None, path):
        raise UsageError(
            f"{where}: a second segmentation, line {study.lines['seg']} has one; keep one"
        )
    study.seg = path
    study.lines.setdefault("seg", line)
