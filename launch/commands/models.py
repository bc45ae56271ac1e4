"""`gliomoe models`: the registry as a table or as JSON."""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from gliomoe.data_shards.errors import UsageError
from gliomoe.launch.bench.step import StepBench

EXAMPLE = "gliomoe models 'gliomoe_*' --bench --size 64"

FLOPS_SIZE = 128
"""Side of the study that FLOPs are counted for, every voxel tissue, four sequences."""

WIDTH = 120
"""Columns of the table; the last one is cut to fit."""


@dataclass(frozen=True)
class Options:
    """Which models to list, and how."""

    pattern: tyro.conf.Positional[str] = "*"
    """Shell pattern of the names."""
    json: bool = False
    """Print a JSON list of objects instead of a table."""
    bench: bool = False
    """Measure a training step of each model here, in a process of its own."""
    step: Annotated[StepBench, tyro.conf.arg(name="")] = field(default_factory=StepBench)
    """What `--bench` measures."""


def run(options: Options) -> int:
    """Print the models that match."""
    names = _matching(options.pattern)
    bar = tqdm(names, desc="models", unit="model", disable=None, leave=False)
    rows = [describe(name, options.step if options.bench else None) for name in bar]
    print(json.dumps(rows, indent=2) if options.json else _table(rows, options.bench))
    return 0


def describe(name: str, step: StepBench | None = None) -> dict[str, Any]:
    """Tasks, sizes, counted FLOPs and paper of a model with all its heads.

    Args:
        name: As the registry has it.
        step: How to measure its training step; None does not.
    """
    import torch

    from gliomoe.launch.bench.inputs import study_for
    from gliomoe.launch.bench.step import step_in_own_process
    from gliomoe.models.flops import count_flops
    from gliomoe.models.registry import create_model, entry, parameter_counts

    known = entry(name)
    with torch.device("meta"):  # shapes only: instant for any size
        model = create_model(name, known.tasks).eval()
    total, active = parameter_counts(model)
    row = {
        "name": name,
        "tasks": list(model.tasks),
        "parameters_total": total,
        "parameters_active": active,
        "flops": count_flops(model, study_for(model, FLOPS_SIZE)),
        "flops_size": FLOPS_SIZE,
        "paper": known.paper,
        "published": dict(known.published),
    }
    return row if step is None else {**row, "bench": step_in_own_process(name, step)}


def _matching(pattern: str) -> list[str]:
    """Names that match, or an error that offers the nearest."""
    from gliomoe.models.registry import list_models

    if names := list_models(pattern):
        return names
    known = list_models()
    near = difflib.get_close_matches(pattern.strip("*?"), known)
    hint = f"perhaps {' or '.join(near)}; " if near else ""
    raise UsageError(f"no model matches {pattern!r}; {hint}known: {', '.join(known)}")


def _table(rows: Sequence[dict[str, Any]], bench: bool) -> str:
    """Aligned columns, the paper's own figures in brackets."""
    head = ["model", "tasks", "params", "", "active", "", "GFLOPs", ""]
    head += ["step", "memory"] if bench else ["paper"]
    cells = [head, *([*_sizes(row), *_last(row, bench)] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = {0, 1, 3, 5, 7, *(() if bench else (8,))}
    lines = []
    for line in cells:
        text = "".join(
            f"{' ' if column in (3, 5, 7) else '  '}{cell:{'<' if column in left else '>'}{width}}"
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )[2:].rstrip()
        lines.append(text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…")
    notes = "(…): the paper's own figure. " if any(row["published"] for row in rows) else ""
    notes += f"FLOPs: {FLOPS_SIZE}³, four sequences, every voxel tissue; 1 multiply-add = 2 FLOPs."
    if bench:
        settings = rows[0]["bench"]
        notes += (
            f"\nStep: forward and backward of one study of {settings['size']}³, "
            f"median of {settings['repeats']}; threads: {settings['threads']}. "
            "Memory: the most it took."
        )
    return "\n".join([*lines, "", notes])


def _sizes(row: dict[str, Any]) -> list[str]:
    """Name, tasks, parameters and FLOPs, each of the sizes beside that of the paper."""
    cells = [row["name"], " ".join(row["tasks"])]
    for key, unit, letter in (
        ("parameters_total", 1e6, " M"),
        ("parameters_active", 1e6, " M"),
        ("flops", 1e9, ""),
    ):
        digits = 1 if letter else 0
        published = row["published"].get(key)
        cells.append(f"{row[key] / unit:.{digits}f}{letter}")
        cells.append("" if published is None else f"({published / unit:g}{letter})")
    return cells


def _last(row: dict[str, Any], bench: bool) -> list[str]:
    """What stands at the end of a row."""
    if not bench:
        return [row["paper"].split(",")[0]]
    found = row["bench"]
    return [f"{found['step_s']:.2f} s", f"{found['peak_memory_bytes'] / 1e9:.2f} GB"]
