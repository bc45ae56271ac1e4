"""Satellite lesions found, by size, and what runs invent: from written evaluations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.metrics.intervals import bootstrap_mean, bootstrap_ratio
from gliomoe.finetune.metrics.lesions import SIZES
from gliomoe.finetune.metrics.paired import wilcoxon_test
from gliomoe.finetune.studies.evaluations import (
    Evaluated,
    EvaluationStudyConfig,
    open_evaluations,
    settings,
)
from gliomoe.finetune.studies.output import Row, write_study
from gliomoe.finetune.studies.plots import below, colours, distinct, draw_lines, panels
from gliomoe.finetune.studies.scores import difference, ends

FOUND, INVENTED = "found", "invented a case"


def study_satellites(config: EvaluationStudyConfig, provenance: dict[str, Any]) -> dict[str, Any]:
    """Count satellites and invented lesions of the whole tumour, and write the study.

    Differences are those from the first evaluation, where it is of the same cases.

    Args:
        config: Evaluations.
        provenance: Versions and hardware.

    Returns:
        The content of `study.json`.

    Raises:
        UsageError: If an evaluation cannot be read or measured no segmentation.
    """
    evaluations = open_evaluations(config.evaluations)
    for folder, one in zip(config.evaluations, evaluations, strict=True):
        if not one.metrics["regions"]:
            raise UsageError(f"{folder}: no segmentation was measured")
    rows = [row for one in evaluations for row in satellite_rows(one, evaluations[0])]
    by = ["run", "size"]
    about = settings(config, evaluations)
    return write_study(config.out, "satellites", by, rows, about, plot(rows), provenance)


def satellite_rows(one: Evaluated, first: Evaluated) -> list[Row]:
    """Share of satellites found in each class of size and of all, and invented lesions a case."""
    paired = one is not first and one.same_cases(first)
    counts = {size: _counts(one, size) for size in SIZES}
    counts["all"] = tuple(np.sum(list(counts.values()), axis=0))
    rows = []
    for size, (there, found) in counts.items():
        row: Row = {"run": one.name, "size": size, "measure": FOUND, "cases": len(there)}
        row |= {"satellites": int(there.sum()), **_ratio(found, there)}
        if paired and there.any():
            other = sum(_counts(first, s)[1] for s in (SIZES if size == "all" else [size]))
            gained = _ratio(found - other, there)
            row |= {
                "difference": gained["value"],
                "difference_low": gained["low"],
                "difference_high": gained["high"],
            }
        rows.append(row)
    invented = _invented(one)
    row = {"run": one.name, "size": "all", "measure": INVENTED, "cases": len(invented)}
    row |= ends(float(invented.mean()), bootstrap_mean(invented))
    test = wilcoxon_test(invented, _invented(first)) if paired else None
    return [*rows, row | difference(test)]


def _measured(one: Evaluated, column: str) -> np.ndarray:
    """A column of the cases that have a segmentation."""
    values = one.numbers(column)
    return values[~np.isnan(values)]


def _counts(one: Evaluated, size: str) -> tuple[np.ndarray, ...]:
    """[cases] satellites of a size, and those found."""
    return _measured(one, f"satellites_{size}"), _measured(one, f"satellites_{size}_found")


def _invented(one: Evaluated) -> np.ndarray:
    """[cases] predicted components of the whole tumour that touch no lesion."""
    return _measured(one, "WT_lesions_predicted") - _measured(one, "WT_lesions_matched")


def _ratio(part: np.ndarray, whole: np.ndarray) -> Row:
    if not whole.any():
        return ends(None, None)
    return ends(float(part.sum() / whole.sum()), bootstrap_ratio(part, whole))


def plot(rows: Sequence[Row]) -> Figure:
    """Share found by size, and invented lesions a case."""
    names = distinct(rows, "run")
    with panels(["satellites found", "lesions invented a case"], width=3.4) as (figure, axes):
        by_size = [row for row in rows if row["measure"] == FOUND and row["size"] != "all"]
        draw_lines(axes[0], by_size, "size", "run", names)
        numbers = {size: {r["satellites"] for r in by_size if r["size"] == size} for size in SIZES}
        axes[0].set_xticks(
            range(len(SIZES)),
            [f"{size}\nn = {'/'.join(map(str, sorted(numbers[size])))}" for size in SIZES],
        )
        if not any(row["satellites"] for row in by_size):
            axes[0].text(0.5, 0.5, "no satellite", transform=axes[0].transAxes, ha="center")
        axes[0].set(xlabel="equivalent diameter, mm", ylim=(-0.02, 1.02))
        invented = {row["run"]: row for row in rows if row["measure"] == INVENTED}
        for place, (name, (colour, marker)) in enumerate(colours(names).items()):
            row = invented[name]
            axes[1].plot(place, row["value"], color=colour, marker=marker, markersize=4)
            if row["low"] is not None:
                axes[1].plot([place, place], [row["low"], row["high"]], color=colour, linewidth=1)
        axes[1].set(xlim=(-0.5, len(names) - 0.5), ylim=(0, None), xticks=[])
        below(figure, *axes)
    return figure
