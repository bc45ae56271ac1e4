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
    """The main figures for a person."""
    blocks = [
        [f"{metrics['run']}: {metrics['cases']} cases, {metrics['folds']} fold(s)"],
        _regions(metrics["regions"]),
        _satellites(metrics["satellites"]),
        _markers(metrics["markers"]),
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
            _cell(found["lesions"]["sensitivity"]),
            _cell(found["lesions"]["precision"]),
            "/".join(str(count) for count in found["empty"].values()),
        ]
        for region, found in regions.items()
    ]
    header = ["", "Dice", "HD95 mm", "NSD 2 mm", "lesions found", "true lesions", "empty t/p/both"]
    return _aligned([header, *rows]) if rows else []


def _satellites(classes: dict[str, Any]) -> list[str]:
    rows = [
        [f"{size} mm", f"{found['found']} of {found['satellites']}", _cell(found["sensitivity"])]
        for size, found in classes.items()
        if found["satellites"]
    ]
    return _aligned([["satellites", "found", "sensitivity"], *rows]) if rows else []


def _markers(markers: dict[str, Any]) -> list[str]:
    rows, notes = [], []
    for task, found in markers.items():
        after = found["calibration"]["after"]
        rows.append(
            [
                task,
                str(found["cases"]),
                _cell(found["macro_auc" if task == "grade" else "auc"]),
                _cell(found["balanced_accuracy"]),
                _cell(found.get("sensitivity")),
                _cell(found.get("specificity")),
                _cell(after["log_loss"]),
                _cell(after["ece"]),
                f"{found['calibration']['temperature']:.2f}",
            ]
        )
        notes += [f"{task}: {found['reason']}"] if found["reason"] else []
        if reason := found["calibration"]["reason"]:
            notes.append(f"{task}: temperature 1, {reason}")
    header = ["", "cases", "AUC", "balanced accuracy", "sensitivity", "specificity", "log loss"]
    return [*_aligned([[*header, "ECE", "T"], *rows]), *notes] if rows else []


def _groups(groups: dict[str, Any]) -> list[str]:
    rows, notes = [], []
    for grouping, found in groups.items():
        for value, figures in found["values"].items():
            areas = [
                f"{task} {_cell(marker['macro_auc' if task == 'grade' else 'auc'])}"
                for task, marker in figures["markers"].items()
            ]
            name = f"{grouping} {value}"
            rows.append([name, str(figures["cases"]), _cell(figures["mean_dice"]), *areas])
        notes += [f"{grouping}: {found['reason']}"] if found["reason"] else []
        if found["values"] and found["unknown"]:
            notes.append(f"{grouping}: not known of {found['unknown']} cases")
    header = ["by group", "cases", "mean Dice", *["AUC"] * max(map(len, rows), default=3)]
    width = max(map(len, rows), default=0)
    return [*_aligned([header[:width], *rows]), *notes] if rows else notes


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
    rows = []
    for kind in ("dice", "auc", "accuracy"):
        for name, found in comparison[kind].items():
            value = None if found["difference"] is None else {"value": found["difference"]}
            cell = _cell(value and {**value, "interval": found["interval"]}, sign="+")
            p_values = [_p(found[key]) for key in ("p_value", "p_holm")]
            rows.append([f"{kind} {name}", cell, found["test"], *p_values, found["reason"] or ""])
    header = [f"minus {comparison['run']}", "difference", "test", "p", "p (Holm)", ""]
    return _aligned([header, *rows]) if rows else []


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
