"""`gliomoe models`: the registry as a table or as JSON."""

import json
from dataclasses import dataclass
from typing import Any

import tyro

from gliomoe.data_shards.errors import UsageError

EXAMPLE = "gliomoe models 'gliomoe_*'"


@dataclass(frozen=True)
class Options:
    """Which models to list, and how."""

    pattern: tyro.conf.Positional[str] = "*"
    """Shell pattern of the names."""
    json: bool = False
    """Print a JSON list of objects instead of a table."""


def run(options: Options) -> int:
    """Print the models that match."""
    from gliomoe.models.registry import list_models

    names = list_models(options.pattern)
    if not names:
        raise UsageError(f"no model matches {options.pattern!r}; known: {', '.join(list_models())}")
    rows = [describe(name) for name in names]
    print(json.dumps(rows, indent=2) if options.json else _table(rows))
    return 0


def describe(name: str) -> dict[str, Any]:
    """Name, tasks and sizes of a model with all its heads."""
    import torch

    from gliomoe.models.model import TASKS
    from gliomoe.models.registry import create_model, parameter_counts

    with torch.device("meta"):  # shapes only: instant for any size
        model = create_model(name, TASKS)
    total, active = parameter_counts(model)
    return {
        "name": name,
        "tasks": list(model.tasks),
        "parameters_total": total,
        "parameters_active": active,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    """Aligned columns."""
    width = max(len(row["name"]) for row in rows)
    head = f"{'model':{width}s}  {'parameters':>10s}  {'active':>8s}  tasks"
    lines = [
        f"{row['name']:{width}s}  {row['parameters_total'] / 1e6:8.1f} M  "
        f"{row['parameters_active'] / 1e6:6.1f} M  {' '.join(row['tasks'])}"
        for row in rows
    ]
    return "\n".join([head, *lines])
