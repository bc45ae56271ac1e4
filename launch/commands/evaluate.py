"""`gliomoe evaluate`: measure a fine-tuned run on labelled cases, with error bars."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gliomoe.finetune.evaluate import EvaluateConfig, evaluate
from gliomoe.launch.runs import machine

EXAMPLE = "gliomoe evaluate runs/first --data test/ --labels test/labels.tsv --out results/first"


@dataclass(frozen=True)
class Options(EvaluateConfig):
    """Measure a fine-tuned run on labelled cases."""

    json: bool = False
    """Print metrics.json instead of a table."""


def run(options: Options) -> int:
    """Evaluate and print."""
    metrics = evaluate(options, machine())
    print(json.dumps(metrics, indent=2) if options.json else table(metrics))
    return 0


def table(metrics: dict[str, Any]) -> str:
    """The main figures for a person, in lines of about 100 characters."""
    blocks = [
        [f"{metrics['run']}: {metrics['cases']} cases, {metrics['folds']} fold(s)"],
        _regions(metrics["regions"]),
        _lesions(metrics["regions"]),
        _satellites(metrics["satellites"]),
        _markers(metrics["markers"]),
        _calibration(metrics["markers"]),
        _groups(metrics["groups"]),
        _uncertainty(metrics["uncertainty"]),
        *(_against(comparison) for comparison in metrics["against"]),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _regions(regions: dict[str, Any]) -> list[str]:
    rows = [
        [
            region,
            _cell(found["dice"]),
            _cell(found["hd95"], 1),
            _cell(found["nsd_2mm"]),
            "/".join(str(count) for count in found["empty"].values()),
        ]
        for region, found in regions.items()
    ]
    header = ["region", "Dice", "HD95 mm", "NSD 2 mm", "empty true/predicted/both"]
    return _aligned([header, *rows]) if rows else []


def _lesions(regions: dict[str, Any]) -> list[str]:
    rows = [
        [
            region,
            f"{found['lesions']['found']} of {found['lesions']['lesions']}",
            _cell(found["lesions"]["sensitivity"]),
            f"{found['lesions']['matched']} of {found['lesions']['predicted']}",
            _cell(found["lesions"]["precision"]),
        ]
        for region, found in regions.items()
    ]
    header = ["lesions", "found", "sensitivity", "predictions matched", "precision"]
    return _aligned([header, *rows]) if rows else []


def _satellites(classes: dict[str, Any]) -> list[str]:
    rows = [
        [f"{size} mm", f"{found['found']} of {found['satellites']}", _cell(found["sensitivity"])]
        for size, found in classes.items()
        if found["satellites"]
    ]
    return _aligned([["satellites", "found", "sensitivity"], *rows]) if rows else []


def _markers(markers: dict[str, Any]) -> list[str]:
    rows = [
        [
            task,
            str(found["cases"]),
            _cell(_auc(task, found)),
            _cell(found["balanced_accuracy"]),
            _cell(found.get("sensitivity")),
            _cell(found.get("specificity")),
        ]
        for task, found in markers.items()
    ]
    notes = [f"{task}: {found['reason']}" for task, found in markers.items() if found["reason"]]
    header = ["task", "cases", "AUC", "balanced accuracy", "sensitivity", "specificity"]
    return [*_aligned([header, *rows]), *notes] if rows else []


def _calibration(markers: dict[str, Any]) -> list[str]:
    rows, notes = [], []
    for task, marker in markers.items():
        found = marker["calibration"]
        cells = [_cell(found["after"][figure]) for figure in ("log_loss", "ece")]
        rows.append([task, *cells, f"{found['temperature']:.2f}"])
        notes += [f"{task}: temperature 1, {found['reason']}"] if found["reason"] else []
    header = ["calibration", "log loss", "ECE", "temperature"]
    return [*_aligned([header, *rows]), *notes] if rows else []


def _groups(groups: dict[str, Any]) -> list[str]:
    """Mean Dice with its interval, AUC without: so many fit a line."""
    rows, notes, tasks = [], [], list[str]()
    for grouping, found in groups.items():
        for value, figures in found["values"].items():
            areas = {task: _auc(task, marker) for task, marker in figures["markers"].items()}
            tasks = list(areas)
            cells = ["–" if area is None else f"{area['value']:.3f}" for area in areas.values()]
            name, cases = f"{grouping} {value}", str(figures["cases"])
            rows.append([name, cases, _cell(figures["mean_dice"]), *cells])
        notes += [f"{grouping}: {found['reason']}"] if found["reason"] else []
        if found["values"] and found["unknown"]:
            notes.append(f"{grouping}: not known of {found['unknown']} cases")
    header = ["by group", "cases", "mean Dice", *(f"AUC {task}" for task in tasks)]
    return [*_aligned([header, *rows]), *notes] if rows else notes


def _auc(task: str, marker: dict[str, Any]) -> dict[str, Any] | None:
    return marker["macro_auc" if task == "grade" else "auc"]


def _uncertainty(tasks: dict[str, Any]) -> list[str]:
    rows = [
        [
            task,
            _cell(found["aurc"]),
            f"{found['aurc_chance']:.3f}",
            _cell(found["score"]),
            _cell(found["score_after_referral"]),
        ]
        for task, found in tasks.items()
    ]
    header = ["uncertainty", "AURC", "by chance", "Dice / accuracy", "surest 90 %"]
    return _aligned([header, *rows]) if rows else []


def _against(comparison: dict[str, Any]) -> list[str]:
    rows, notes = [], []
    for kind in ("dice", "auc", "accuracy"):
        for name, found in comparison[kind].items():
            value = None if found["difference"] is None else {"value": found["difference"]}
            cell = _cell(value and {**value, "interval": found["interval"]}, sign="+")
            p_values = [_p(found[key]) for key in ("p_value", "p_holm")]
            rows.append([f"{kind} {name}", cell, found["test"], *p_values])
            notes += [f"{kind} {name}: {found['reason']}"] if found["reason"] else []
    header = ["minus that run", "difference", "test", "p", "p (Holm)"]
    return [f"against {comparison['run']}", *_aligned([header, *rows]), *notes] if rows else []


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows of cells as lines, the first column to the left."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]

    def cells(row: list[str]) -> Iterator[str]:
        for i, (text, width) in enumerate(zip(row, widths, strict=False)):
            yield text.ljust(width) if i == 0 else text.rjust(width)

    return ["  ".join(cells(row)).rstrip() for row in rows]


def _p(p_value: float | None) -> str:
    return "–" if p_value is None else f"{p_value:.3g}"


def _cell(figure: dict[str, Any] | None, digits: int = 3, sign: str = "") -> str:
    """A figure with its interval; a dash for what does not exist."""
    if figure is None:
        return "–"
    text = f"{figure['mean'] if 'mean' in figure else figure['value']:{sign}.{digits}f}"
    if figure["interval"] is None:
        return text
    low, high = figure["interval"]
    return f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
