"""Sizes, counted FLOPs, step time and memory of every registered model, beside the papers' own.

    python tests/benchmarks/models.py

writes what `gliomoe models --json --bench` prints to tests/benchmarks/results/models.json, with
machine and versions. Takes about five minutes on two cores.
"""

from pathlib import Path

from tqdm import tqdm

from gliomoe.data_shards.files import write_json
from gliomoe.launch.bench.step import StepBench
from gliomoe.launch.commands.models import describe
from gliomoe.launch.runs import machine
from gliomoe.models.registry import list_models

RESULT = Path(__file__).parent / "results/models.json"


def main() -> None:
    """Measure and write."""
    rows = [describe(name, StepBench()) for name in tqdm(list_models(), unit="model")]
    write_json(RESULT, {"models": rows, "machine": machine()})


if __name__ == "__main__":
    main()
