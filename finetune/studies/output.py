"""What every study leaves behind: `study.json`, `table.csv` and `plot.png` in one folder.

Rows are tidy, one figure each. Beside the columns that say of what it is (a run, a subset), a row
has

- `measure`, as `Dice WT` or `AUC IDH`, and `cases`, how many it is of;
- `value`, `low`, `high`: the figure and its 95 % interval, None where it does not exist;
- `reason`, where something is missing;
- where it is compared with another row, paired by case: `difference`, `difference_low`,
  `difference_high`, `p_value` and `p_holm`, corrected by Holm for all p-values of the table;

and any further column. `study.json` holds the same rows with the settings that led to them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gliomoe.data_shards.files import atomic_write, write_json, write_list
from gliomoe.finetune.metrics.paired import holm
from gliomoe.finetune.report.evaluations import aligned

FORMAT = 1
STUDY, TABLE, PLOT = "study.json", "table.csv", "plot.png"
WIDTH = 100
"""Columns of a printed table."""

_ENDS = {"value": ("low", "high"), "difference": ("difference_low", "difference_high")}
"""Column of a figure → those of its interval."""

Row = dict[str, Any]


def write_study(
    out: Path,
    name: str,
    by: Sequence[str],
    rows: Sequence[Row],
    settings: Mapping[str, Any],
    figure: Figure,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Write a study's files; the JSON goes first and comes last, so that with it all are whole.

    Args:
        out: Their folder.
        name: Of the study, as in its command.
        by: Columns that say of what a row is.
        rows: As the module says; they get `p_holm` where they have a `p_value`.
        settings: What led to the rows, as plain values.
        figure: The plot.
        provenance: Versions and hardware.

    Returns:
        The content of `study.json`.
    """
    correct(rows)
    content = {
        "format": FORMAT,
        "study": name,
        "by": list(by),
        "settings": dict(settings),
        "rows": list(rows),
        "provenance": dict(provenance),
    }
    (out / STUDY).unlink(missing_ok=True)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    write_list(out / TABLE, columns, [[row.get(column) for column in columns] for row in rows])
    with atomic_write(out / PLOT) as file:
        figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    write_json(out / STUDY, content)
    return content


def correct(rows: Sequence[Row]) -> None:
    """Give rows with a `p_value` their `p_holm`, corrected for all of them."""
    tested = [row for row in rows if row.get("p_value") is not None]
    for row, p_value in zip(tested, holm([row["p_value"] for row in tested]), strict=True):
        row["p_holm"] = p_value


def as_text(content: Mapping[str, Any]) -> str:
    """The figures of `study.json` for a terminal, at most `WIDTH` columns wide.

    A line for each thing measured, a column for each measure, first the figures and then the
    differences, of which those with a corrected p below 0.05 are marked, and why what is missing.
    """
    by, rows = content["by"], content["rows"]
    blocks = [*_blocks(by, rows, "value", ""), *_blocks(by, rows, "difference", "+")]
    notes = ["* p (Holm) < 0.05"] if any(_significant(row) for row in rows) else []
    told = [(row["reason"], row["measure"]) for row in rows if row.get("reason")]
    for reason in dict.fromkeys(reason for reason, _ in told):
        measures = dict.fromkeys(measure for why, measure in told if why == reason)
        notes.append(f"{', '.join(measures)}: {reason}")
    if notes:
        blocks.append("\n".join(notes))
    return "\n\n".join(blocks)


def _blocks(by: Sequence[str], rows: Sequence[Row], column: str, sign: str) -> Iterator[str]:
    """A table of one column by measure, in as many blocks as its width needs."""
    shown = [row for row in rows if row.get(column) is not None]
    names = list(dict.fromkeys(tuple(str(row[key]) for key in by) for row in shown))
    cells = {
        (tuple(str(row[key]) for key in by), row["measure"]): _cell(row, column, sign)
        for row in shown
    }
    titles = list(by) if column == "value" else [f"{by[0]} ({column})", *by[1:]]
    lead = sum(max(map(len, texts)) + 2 for texts in zip(titles, *names, strict=True))
    block: list[str] = []
    width = lead
    for measure in dict.fromkeys(row["measure"] for row in shown):
        own = max(len(text) for text in (measure, *(cells.get((n, measure), "–") for n in names)))
        if block and width + own > WIDTH:
            yield _table(titles, names, block, cells)
            block, width = [], lead
        block.append(measure)
        width += own + 2
    if block:
        yield _table(titles, names, block, cells)


def _table(
    titles: Sequence[str],
    names: Sequence[tuple[str, ...]],
    measures: Sequence[str],
    cells: Mapping[tuple[tuple[str, ...], str], str],
) -> str:
    lines = [[*name, *(cells.get((name, measure), "–") for measure in measures)] for name in names]
    return "\n".join(aligned([[*titles, *measures], *lines]))


def _cell(row: Row, column: str, sign: str) -> str:
    """A figure, its interval, and a mark if it is a difference beyond chance."""
    low, high = (row.get(end) for end in _ENDS[column])
    text = f"{row[column]:{sign}.3f}"
    if low is not None and high is not None:
        digits = 2 if column == "value" else 3  # whether it excludes 0 must be seen
        text += f" [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
    return f"{text}*" if column != "value" and _significant(row) else text


def _significant(row: Row) -> bool:
    p_value = row.get("p_holm")
    return p_value is not None and p_value < 0.05
