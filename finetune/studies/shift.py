"""What runs do on other cohorts, and on the same scans corrupted by degrees."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from matplotlib.figure import Figure
from tqdm import tqdm

from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.finetune.cases import LabelledCase
from gliomoe.finetune.dataset import read_case
from gliomoe.finetune.evaluate import open_cases
from gliomoe.finetune.inputs import with_inputs
from gliomoe.finetune.precision import pick_device
from gliomoe.finetune.report.evaluations import folder_names
from gliomoe.finetune.run import FinetunedRun
from gliomoe.finetune.studies.corruptions import CORRUPTIONS, HIGHEST, corrupt
from gliomoe.finetune.studies.output import Row, write_study
from gliomoe.finetune.studies.plots import below, distinct, draw_lines, measured, panels
from gliomoe.finetune.studies.scores import CaseScores, ModelStudyConfig, score, score_rows
from gliomoe.models.model import Model

Condition = tuple[str, int]
"""Corruption and severity."""

CLEAN: Condition = ("none", 0)


@dataclass(frozen=True, kw_only=True)
class ShiftConfig(ModelStudyConfig):
    """Which runs on which cohorts."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of fine-tuned runs, or fine-tuned checkpoints; each is a curve."""
    data: tuple[Path, ...]
    """Cohorts, named as their folders: shard sets with kept ids, or raw folders. The first one's
    scans are corrupted."""
    labels: tuple[Path, ...] = ()
    """A label table for each cohort, or none: those that the data carry themselves."""
    cache: tuple[Path, ...] = ()
    """Where each raw cohort's shard set is kept, or none: OUT/shards/COHORT."""
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    """Which corruptions; `none` compares cohorts alone."""
    seed: int = 0
    """Of what is random in the corruptions."""
    flips: bool = False
    """Test-time augmentation: average over all flips along the axes, at eight times the work."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if not (self.runs and self.data):
            raise ValueError("name at least one run, and one cohort with --data")
        for name in ("labels", "cache"):
            given = len(getattr(self, name))
            if given not in (0, len(self.data)):
                raise ValueError(f"--{name}: {given} for {len(self.data)} cohorts; one for each")
        if unknown := [c for c in self.corruptions if c not in (*CORRUPTIONS, CLEAN[0])]:
            known = ", ".join((*CORRUPTIONS, CLEAN[0]))
            raise ValueError(f"--corruptions {unknown[0]}: not one of {known}")

    def conditions(self, cohort: int) -> list[Condition]:
        """Corruptions and severities of a cohort, the first untouched."""
        wanted = [name for name in self.corruptions if name != CLEAN[0]] if cohort == 0 else []
        return [CLEAN, *((name, s) for name in wanted for s in range(1, HIGHEST + 1))]


def study_shift(config: ShiftConfig, provenance: dict[str, Any]) -> dict[str, Any]:
    """Measure runs on cohorts and on corrupted scans of the first, and write the study.

    Each case is read and corrupted once for all runs. Differences are those of corrupted scans from
    the same scans untouched, paired by case; cohorts have other cases and no such difference.

    Args:
        config: Runs, cohorts, corruptions.
        provenance: Versions and hardware.

    Returns:
        The content of `study.json`.

    Raises:
        UsageError: If the runs do not fit the cohorts.
    """
    cohorts, names = folder_names(config.data), folder_names(config.runs)
    runs = [FinetunedRun.open(path).averaging(config.flips) for path in config.runs]
    members = [run.models(pick_device(config.device)) for run in runs]
    known = dict(zip(names, zip(runs, members, strict=True), strict=True))
    opened = [_open(config, number, cohort, runs) for number, cohort in enumerate(cohorts)]
    rows: list[Row] = []
    for number, (cohort, (shards, cases)) in enumerate(zip(cohorts, opened, strict=True)):
        for models in members:
            genes = config.genes if models[0].genes else None
            cases = with_inputs(models[0], shards, cases, genes)
        found = _scores(shards, cases, known, config.conditions(number), config.seed, cohort)
        rows += _rows(cohort, found)
    settings = {
        "runs": [str(path) for path in config.runs],
        "data": [str(path) for path in config.data],
        "cases": {c: len(cases) for c, (_, cases) in zip(cohorts, opened, strict=True)},
        "corruptions": list(config.corruptions),
        "seed": config.seed,
        "flips": config.flips,
    }
    by = ["run", "cohort", "corruption", "severity"]
    return write_study(config.out, "shift", by, rows, settings, plot(rows), provenance)


def _open(
    config: ShiftConfig, number: int, cohort: str, runs: Sequence[FinetunedRun]
) -> tuple[ShardSet, list[LabelledCase]]:
    labels = config.labels[number] if config.labels else None
    cache = config.cache[number] if config.cache else config.out / "shards" / cohort
    return open_cases(runs, config.data[number], labels, cache, config.allow_leakage)


def _scores(
    shards: ShardSet,
    cases: Sequence[LabelledCase],
    runs: dict[str, tuple[FinetunedRun, list[Model]]],
    conditions: Sequence[Condition],
    seed: int,
    cohort: str,
) -> dict[str, dict[Condition, list[CaseScores]]]:
    """Run → condition → all cases."""
    found: dict[str, dict[Condition, list[CaseScores]]] = {
        name: {condition: [] for condition in conditions} for name in runs
    }
    bar = tqdm(total=len(cases) * len(conditions), desc=cohort, unit="scan", disable=None)
    for case in cases:
        sample = read_case(shards, case)
        for condition in conditions:
            seen = corrupt(sample, *condition, seed)
            for name, (run, models) in runs.items():
                found[name][condition].append(score(run, models, seen))
            bar.update()
    bar.close()
    return found


def _rows(cohort: str, found: dict[str, dict[Condition, list[CaseScores]]]) -> list[Row]:
    rows = []
    for name, by_condition in found.items():
        for (corruption, severity), scores in by_condition.items():
            clean = None if severity == 0 else by_condition[CLEAN]
            by = {"run": name, "cohort": cohort, "corruption": corruption, "severity": severity}
            rows += score_rows(by, scores, clean)
    return rows


def summary(content: dict[str, Any]) -> dict[str, Any]:
    """The study for a terminal: scans untouched and at the highest severity, mean Dice and AUC."""
    rows = [
        row
        for row in content["rows"]
        if row["severity"] in (0, HIGHEST) and _summed_up(row["measure"])
    ]
    return {**content, "rows": rows}


def _summed_up(measure: str) -> bool:
    return measure == "Dice mean" or measure.startswith("AUC")


def plot(rows: Sequence[Row]) -> Figure:
    """A row of panels for each measure: mean Dice and AUC by cohort and by severity."""
    measures = [measure for measure in measured(rows) if _summed_up(measure)]
    names, cohorts = distinct(rows, "run"), distinct(rows, "cohort")
    columns = ["cohort"] if len(cohorts) > 1 else []
    columns += [c for c in distinct(rows, "corruption") if c != CLEAN[0]]
    columns = columns or ["cohort"]
    titles = [c.replace("_", " ") for c in columns] + [""] * len(columns) * (len(measures) - 1)
    with panels(titles, 1.7, 1.7, share=True, columns=len(columns)) as (figure, axes):
        for number, axis in enumerate(axes):
            measure, column = measures[number // len(columns)], columns[number % len(columns)]
            clean = [r for r in rows if r["measure"] == measure and r["corruption"] == CLEAN[0]]
            if column == "cohort":
                draw_lines(axis, clean, "cohort", "run", names, joined=False)
            else:
                own = [r for r in rows if r["measure"] == measure and r["corruption"] == column]
                untouched = [r for r in clean if r["cohort"] == cohorts[0]]
                draw_lines(axis, [*untouched, *own], "severity", "run", names)
            if number % len(columns) == 0:
                axis.set_ylabel(measure)
            if column != "cohort" and number >= len(axes) - len(columns):
                axis.set_xlabel("severity")
        below(figure, *axes)
    return figure
