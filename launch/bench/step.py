"""Time and memory of one training step of a model, in a process of its own.

    python -m gliomoe.launch.bench.step MODEL SIZE REPEATS

prints a JSON object. Memory is only the model's own if nothing ran in the process before it.
"""

import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gliomoe.data_shards.errors import UsageError
from gliomoe.launch.bench.inputs import study_for
from gliomoe.models.features import Predictions
from gliomoe.models.registry import create_model, entry


@dataclass(frozen=True)
class StepBench:
    """How a step is measured."""

    size: int = 64
    """Side of the study, voxels; it has four sequences."""
    repeats: int = 5
    """Steps of which the median counts, after one that does not."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if min(self.size, self.repeats) < 1:
            raise ValueError("size and repeats must be positive")


def step_in_own_process(name: str, settings: StepBench) -> dict[str, Any]:
    """What `measure_step` finds in a fresh process.

    Raises:
        UsageError: If the step failed there, with the last line that the process said.
    """
    command = [sys.executable, "-m", __name__, name, str(settings.size), str(settings.repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"]
        raise UsageError(f"{name}: a step at {settings.size}³ failed: {said[-1]}")
    return json.loads(done.stdout)


def measure_step(name: str, settings: StepBench) -> dict[str, Any]:
    """Forward and backward pass of one study, all tasks of the model, float32 on the CPU.

    Returns:
        `step_s`, the median; `peak_memory_bytes`, the largest resident memory above that before
        the model was built: weights, gradients, activations; `threads` and the settings.
    """
    before = resident_memory("VmRSS")
    torch.manual_seed(0)
    model = create_model(name, entry(name).tasks).train()
    batch = study_for(model, settings.size)
    seconds = []
    for _ in range(settings.repeats + 1):
        model.zero_grad(set_to_none=True)
        begun = time.perf_counter()
        mean_square(model(batch)).backward()
        seconds.append(time.perf_counter() - begun)
    return {
        "step_s": round(statistics.median(seconds[1:]), 4),
        "peak_memory_bytes": resident_memory("VmHWM") - before,
        "threads": torch.get_num_threads(),
        **asdict(settings),
    }


def mean_square(predictions: Predictions) -> Tensor:
    """A loss that every output takes part in."""
    outputs = [predictions.seg, predictions.classes, *predictions.deep]
    present = [output for output in outputs if output is not None]
    return torch.stack(
        [output.float().square().mean() for output in (*present, *predictions.markers.values())]
    ).sum()


def resident_memory(field: str) -> int:
    """Bytes of `VmRSS` (now) or `VmHWM` (the most so far) of this process.

    The kernel's `ru_maxrss` will not do: it begins with that of the parent process.
    """
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    model_name, side, times = sys.argv[1:]
    print(json.dumps(measure_step(model_name, StepBench(int(side), int(times)))))
