"""What `gliomoe evaluate` wrote, for studies that need no model: `metrics.json` and `cases.csv`."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.losses import GRADES
from gliomoe.finetune.report.evaluations import folder_names, read_metrics

CASES = "cases.csv"


@dataclass(frozen=True, kw_only=True)
class EvaluationStudyConfig:
    """Options of every study of evaluations."""

    evaluations: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of `gliomoe evaluate`, in the order in which they are shown."""
    out: Path
    """Folder for study.json, table.csv and plot.png."""

    def __post_init__(self) -> None:
        """Refuse a study of nothing."""
        if not self.evaluations:
            raise ValueError("name at least one folder of gliomoe evaluate")


@dataclass(frozen=True)
class Evaluated:
    """One evaluation."""

    name: str
    metrics: dict[str, Any]
    """Content of `metrics.json`."""
    cases: list[dict[str, str]]
    """Lines of `cases.csv`."""

    def numbers(self, column: str) -> np.ndarray:
        """[cases] a column, NaN where it is empty."""
        return np.array([float(case[column] or "nan") for case in self.cases])

    def marker(self, task: str, raw: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Labels [n] and probabilities [n, 1] or [n, grades] of the cases with a known label."""
        names = [f"{task}_p{g:g}" for g in GRADES] if task == "grade" else [f"{task}_p"]
        columns = [self.numbers(f"{name}_raw" if raw else name) for name in names]
        label = self.numbers(f"{task}_label")
        known = ~np.isnan(label)
        return label[known], np.stack(columns, 1)[known]

    def same_cases(self, other: "Evaluated") -> bool:
        """Whether both are of the same cases of the same data, so that they can be paired."""
        keys = [[case["key"] for case in each.cases] for each in (self, other)]
        return keys[0] == keys[1] and self.metrics["data"] == other.metrics["data"]


def open_evaluations(folders: Sequence[Path]) -> list[Evaluated]:
    """Read evaluations, named as their folders.

    Raises:
        UsageError: If a folder does not hold both files, or they do not belong together.
    """
    names = folder_names(folders)
    return [_open(folder, name) for folder, name in zip(folders, names, strict=True)]


def _open(folder: Path, name: str) -> Evaluated:
    metrics = read_metrics(folder)
    path = folder / CASES
    try:
        with path.open(encoding="utf-8", newline="") as file:
            cases = list(csv.DictReader(file))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{path}: not readable as a table of gliomoe evaluate ({error})"
        ) from error
    if len(cases) != metrics["cases"]:
        raise UsageError(
            f"{path}: {len(cases)} cases, metrics.json has {metrics['cases']}; evaluate again"
        )
    return Evaluated(name, metrics, cases)


def settings(config: EvaluationStudyConfig, evaluations: Sequence[Evaluated]) -> dict[str, Any]:
    """What the rows come from."""
    return {
        "evaluations": {
            one.name: {
                "folder": str(folder),
                **{key: one.metrics[key] for key in ("run", "data", "cases", "folds")},
            }
            for folder, one in zip(config.evaluations, evaluations, strict=True)
        }
    }
