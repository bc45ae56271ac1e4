"""`gliomoe evaluate`: measure a fine-tuned run on labelled cases, with error bars."""

import json
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
    print(json.dumps(metrics, indent=2) if options.json else _table(metrics))
    return 0


def _table(metrics: dict[str, Any]) -> str:
    """The main figures for a person."""
    lines = [f"{metrics['run']}: {metrics['cases']} cases, {metrics['folds']} fold(s)", ""]
    if metrics["regions"]:
        lines.append(f"{'':8s}{'Dice':>22s}{'HD95 mm':>24s}{'NSD 2 mm':>22s}")
    for region, figures in metrics["regions"].items():
        cells = [_cell(figures["dice"]), _cell(figures["hd95"], 1), _cell(figures["nsd_2mm"])]
        lines.append(f"{region:8s}{cells[0]:>22s}{cells[1]:>24s}{cells[2]:>22s}")
    for task, figures in metrics["markers"].items():
        lines.append(_marker_line(task, figures))
    for kind, differences in metrics.get("against", {}).items():
        if kind != "run":
            lines += [_difference_line(kind, name, d) for name, d in differences.items()]
    return "\n".join(lines)


def _marker_line(task: str, figures: dict[str, Any]) -> str:
    area = figures["macro_auc"] if task == "grade" else figures["auc"]
    if area is None:
        return f"{task:8s}{figures['reason']}"
    value = {"mean": area, "interval": figures.get("auc_interval")}
    name = "macro AUC" if task == "grade" else "AUC"
    return f"{task:8s}{name} {_cell(value)}  accuracy {figures['accuracy']:.3f}"


def _difference_line(kind: str, name: str, difference: dict[str, Any] | None) -> str:
    if difference is None:
        return f"against  {kind} {name}: one class only"
    cell = _cell({"mean": difference["difference"], "interval": difference["interval"]}, sign="+")
    p_value = difference["p_value"]
    return f"against  {kind} {name}: {cell}" + ("" if p_value is None else f"  p {p_value:.3g}")


def _cell(value: dict[str, Any], digits: int = 3, sign: str = "") -> str:
    """A figure with its interval."""
    text = f"{value['mean']:{sign}.{digits}f}"
    if value["interval"] is None:
        return text
    low, high = value["interval"]
    return f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
