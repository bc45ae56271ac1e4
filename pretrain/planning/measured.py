"""Measured step times, from the files that measurements leave, and the speed that they imply."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.monitoring.journal import TIMING, read_lines
from gliomoe.pretrain.planning.cost import training_flops
from gliomoe.pretrain.planning.work import Work


@dataclass(frozen=True)
class Measured:
    """Step times of one device."""

    points: tuple[tuple[float, float], ...]
    """FLOPs of forward and backward pass on one process, and seconds of the step."""
    source: str
    """The file, and on what it was measured."""

    def fit(self) -> tuple[float, float]:
        """FLOP/s and seconds of a step that do not grow with its work; see `fit_line`."""
        return fit_line(self.points)


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """FLOP/s and overhead, with the least squared relative error of the seconds.

    One size of step tells nothing of the overhead, which then is 0; nor may it be negative.

    Args:
        points: FLOPs and seconds.
    """
    flops, seconds = (np.array(column) for column in zip(*points, strict=True))
    if len(set(flops)) > 1:
        rows = np.stack([flops, np.ones_like(flops)], axis=1) / seconds[:, None]
        (slope, overhead), *_ = np.linalg.lstsq(rows, np.ones_like(seconds), rcond=None)
        if slope > 0 and overhead >= 0:
            return 1 / float(slope), float(overhead)
    share = flops / seconds
    return float(np.square(share).sum() / share.sum()), 0.0


def read_measured(place: Path, config: PretrainConfig, work: Work) -> Measured:
    """Step times from a run's folder, from `gpu_check.json` or from `scaling.json`.

    Raises:
        UsageError: If the place holds no step times, or none of this model.
    """
    if place.is_dir():
        return _from_run(place, config, work)
    try:
        content = json.loads(place.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{place}: neither a run nor a JSON file of measurements ({error})"
        ) from error
    if "models" in content and "device" in content:
        return _from_gpu_check(place, content, config.model.name)
    if "points" in content:
        points = [(point["flops"], point["step_s"]) for point in content["points"]]
        return Measured(tuple(points), f"{place.name}, {content['machine']['processor']}")
    raise UsageError(f"{place}: no step times; give a run, gpu_check.json or scaling.json")


def measured_run(run: Path) -> bool:
    """Whether a run's folder holds step times."""
    return len(read_lines(run / TIMING)) > 1


def _from_run(run: Path, config: PretrainConfig, work: Work) -> Measured:
    """All but the first line of a run's times, which holds the warm-up."""
    lines = read_lines(run / TIMING)[1:]
    if not lines:
        raise UsageError(f"{run}: no step times yet; a run writes them every monitor.log_every")
    points = [
        (
            training_flops(work, config, config.optim.batch / line["world"]),
            line["seconds"]["step"] * config.optim.batch / line["studies"],
        )
        for line in lines
    ]
    return Measured(tuple(points), f"{run}, {sum(line['studies'] for line in lines)} studies")


def _from_gpu_check(place: Path, content: dict[str, Any], model: str) -> Measured:
    """Batches of a model on a GPU."""
    found = content["models"].get(model, {})
    forward = found.get("flops", {}).get("pretraining_forward")
    steps = found.get("pretraining", {}).get("batches", {}).values()
    points = [
        (3 * forward * step["studies"], step["step_s"])
        for step in steps
        if forward and isinstance(step, dict)
    ]
    if not points:
        known = ", ".join(content["models"])
        raise UsageError(f"{place}: no measured steps of {model}; it has {known}")
    return Measured(tuple(points), f"{place.name}, {content['device']['device']}")


def reading_speed(place: Path, config: PretrainConfig) -> float:
    """Studies that one reading process delivers a second, from `results/loader.json`.

    That was measured with pairs of crops, as views are read; time goes with their voxels.

    Raises:
        UsageError: If the file holds no such measurement.
    """
    try:
        content = json.loads(place.read_text("utf-8"))
        crops, size = content["crops"]["ours"]["crops_per_s"], content["crops"]["setup"]["size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{place}: not the result of tests/benchmarks/loader.py") from error
    return crops / 2 * (size / config.views.size) ** 3
