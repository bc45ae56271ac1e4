"""Training curves of a fine-tuning run, from its TensorBoard events."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Line = tuple[Sequence[float], Sequence[float]]
"""Steps and values."""

POINTS = 120
"""Most points of a line; a longer one is averaged over equal stretches."""

PANELS = {
    "Training loss": "loss/total",
    "Validation Dice": "validation/dice_",
    "Validation log loss of the markers": "validation/log_loss_",
}
"""Title → beginning of the tags whose mean is drawn."""


def read_curves(folders: Mapping[str, Path]) -> dict[str, dict[str, Line]]:
    """Panel → line → steps and values; a panel that no fold has is left out.

    Args:
        folders: Name of a fold → folder with its events.
    """
    scalars = {name: _read_scalars(folder) for name, folder in folders.items()}
    panels: dict[str, dict[str, Line]] = {}
    for title, prefix in PANELS.items():
        for name, tags in scalars.items():
            lines = [events for tag, events in tags.items() if tag.startswith(prefix)]
            if lines:
                panels.setdefault(title, {})[name] = _mean(lines)
    return panels


def _read_scalars(folder: Path) -> dict[str, list[Any]]:
    """Tag → events with `step` and `value`."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}


def _mean(lines: Sequence[Sequence[Any]]) -> Line:
    """The mean of lines over their common steps, thinned to `POINTS`."""
    by_step: dict[int, list[float]] = {}
    for line in lines:
        for event in line:
            by_step.setdefault(event.step, []).append(event.value)
    steps = np.array(sorted(by_step), float)
    values = np.array([np.mean(by_step[int(step)]) for step in steps])
    parts = np.array_split(np.arange(len(steps)), min(POINTS, len(steps)))
    return [float(steps[p].mean()) for p in parts], [float(values[p].mean()) for p in parts]
