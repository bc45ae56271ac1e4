"""Results of `gliomoe evaluate` side by side, as table cells and as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.evaluate import FORMAT
from gliomoe.finetune.predict import TASK_NAMES
from gliomoe.finetune.report.figures import Interval

METRICS = "metrics.json"


@dataclass(frozen=True)
class Evaluation:
    """What `gliomoe evaluate` measured on one set of cases."""

    name: str
    cases: int
    measures: Mapping[str, Interval]
    """Such as `Dice ET` or `AUC IDH`, all between 0 and 1."""


def read_evaluations(folders: Sequence[Path]) -> list[Evaluation]:
    """What `gliomoe evaluate` wrote into these folders, named as the folders.

    Raises:
        UsageError: If a folder holds no `metrics.json` of this format.
    """
    names = folder_names(folders)
    return [
        Evaluation(name, metrics["cases"], measures(metrics))
        for name, metrics in zip(names, map(read_metrics, folders), strict=True)
    ]


def folder_names(folders: Sequence[Path]) -> list[str]:
    """Folders by their own name, with those of the folders above as far as it takes to differ.

    Raises:
        UsageError: If one is given twice.
    """
    resolved = [folder.resolve() for folder in folders]
    for folder, place in zip(folders, resolved, strict=True):
        if resolved.count(place) > 1:
            raise UsageError(f"{folder}: is given twice")
    depth = 1
    while True:
        names = ["/".join(place.parts[-depth:]) for place in resolved]
        if len(set(names)) == len(names):
            return names
        depth += 1


def read_metrics(folder: Path) -> dict[str, Any]:
    """The `metrics.json` of a folder.

    Raises:
        UsageError: If there is none, or none of this format.
    """
    path = folder / METRICS
    try:
        metrics: dict[str, Any] = json.loads(path.read_text("utf-8"))
        version = metrics["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path}: not readable as results of gliomoe evaluate ({error})"
        ) from error
    if version != FORMAT:
        raise UsageError(f"{path}: has format {version}, this program reads {FORMAT}")
    return metrics


def measures(figures: Mapping[str, Any]) -> dict[str, Interval]:
    """The Dice and AUC of `metrics.json`, or of one of its groups, as `Dice ET` or `AUC IDH`."""
    found = {f"Dice {region}": _interval(of["dice"]) for region, of in figures["regions"].items()}
    if figures["mean_dice"] is not None:
        found["Dice mean"] = _interval(figures["mean_dice"])
    for task, marker in figures["markers"].items():
        if auc := marker["macro_auc" if task == "grade" else "auc"]:
            found[f"AUC {TASK_NAMES[task]}"] = _interval(auc)
    return found


def _interval(found: Mapping[str, Any]) -> Interval:
    low, high = found["interval"] or (None, None)
    return Interval(found["mean"] if "mean" in found else found["value"], low, high)


def measure_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """Every measure that any evaluation has, in order of first appearance."""
    return list(dict.fromkeys(name for one in evaluations for name in one.measures))


def cell(interval: Interval | None) -> tuple[str, str]:
    """A value and its interval as text; a dash for what was not measured."""
    if interval is None:
        return "–", ""
    if interval.low is None or interval.high is None:
        return f"{interval.value:.3f}", "no interval"
    return f"{interval.value:.3f}", f"{interval.low:.2f}–{interval.high:.2f}"


def as_text(evaluations: Sequence[Evaluation]) -> str:
    """The comparison for a terminal: a row per evaluation, its intervals in the row below."""
    names = measure_names(evaluations)
    rows = [["", "cases", *names]]
    for one in evaluations:
        cells = [cell(one.measures.get(name)) for name in names]
        rows.append([one.name, str(one.cases), *(value for value, _ in cells)])
        rows.append(["", "", *(interval for _, interval in cells)])
    return "\n".join(aligned(rows))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines, the first of them ruled off as the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (rows[0], ["-" * width for width in widths], *rows[1:])
    ]
