"""Whether torch.compile gives every model's own result, and what it costs and saves.

    python tests/benchmarks/compiled.py [PATTERN]

compiles the smallest model of each family with torch's code generator (a C++ compiler is needed),
compares outputs and gradients with those of the model as it is, and writes
tests/benchmarks/results/compiled.json after each, beside those that are there. One study of 32³
with four sequences, evaluation mode.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.data_shards.files import write_json
from gliomoe.launch.bench.inputs import study_for
from gliomoe.launch.bench.step import mean_square
from gliomoe.launch.runs import machine
from gliomoe.models.registry import MODELS, create_model, list_models

RESULT = Path(__file__).parent / "results/compiled.json"
SIZE = 32
REPEATS = 5


def outputs(model: Callable, batch: StudyBatch) -> dict[str, Tensor]:
    """Segmentation and marker logits."""
    predictions = model(batch)
    found = {} if predictions.seg is None else {"seg": predictions.seg}
    return {**found, **predictions.markers}


def gradient(module: nn.Module, model: Callable, batch: StudyBatch) -> Tensor:
    """All gradients of a loss that every output takes part in, as one vector."""
    module.zero_grad()
    mean_square(model(batch)).backward()
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def seconds(run: Callable[[], object]) -> float:
    """Of one call."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def apart(a: Tensor, b: Tensor) -> float:
    """Root mean square difference over root mean square."""
    return float((a - b).norm() / b.norm())


def measure(name: str) -> dict[str, object]:
    """One model, as it is and compiled."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = create_model(name, MODELS[name].tasks).eval()
    batch = study_for(model, SIZE)
    compiled = torch.compile(model)
    plain_gradient = gradient(model, model, batch)
    begun = time.perf_counter()
    differences = {"gradient": apart(gradient(model, compiled, batch), plain_gradient)}
    spent = time.perf_counter() - begun
    plain, same = outputs(model, batch), outputs(compiled, batch)
    differences |= {key: apart(same[key], plain[key]) for key in plain}
    steps = [
        (
            seconds(lambda: gradient(model, model, batch)),
            seconds(lambda: gradient(model, compiled, batch)),
        )
        for _ in range(REPEATS)
    ]
    own, theirs = (round(statistics.median(column), 4) for column in zip(*steps, strict=True))
    return {
        "relative_difference": differences,
        "first_step_s": round(spent, 1),
        "step_s": {"as it is": own, "compiled": theirs},
    }


def main(pattern: str = "*") -> None:
    """Measure and write."""
    smallest = {MODELS[name].family: name for name in reversed(list_models(pattern))}
    found = json.loads(RESULT.read_text("utf-8"))["models"] if RESULT.is_file() else {}
    for name in tqdm(sorted(smallest.values()), unit="model"):
        found[name] = measure(name)
        about = {"size": SIZE, "repeats": REPEATS, "threads": torch.get_num_threads()}
        write_json(RESULT, {**about, "models": found, "machine": machine()})


if __name__ == "__main__":
    main(*sys.argv[1:])
