"""Sizes, counted FLOPs, step time and memory of every registered model, beside the papers' own.

    python tests/benchmarks/models.py

writes what `gliomoe models --json --bench` prints, and the rows of MAGPIE's Tables 3 and 6 that
other settings of `magpie_mednext_l` answer, to tests/benchmarks/results/models.json, with machine
and versions.
"""

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from gliomoe.data_shards.files import write_json
from gliomoe.launch.bench.inputs import study_for
from gliomoe.launch.bench.step import StepBench
from gliomoe.launch.commands.models import FLOPS_SIZE, describe
from gliomoe.launch.runs import machine
from gliomoe.models.flops import count_flops
from gliomoe.models.registry import create_model, list_models, parameter_counts

RESULT = Path(__file__).parent / "results/models.json"

MAGPIE_TABLES: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "8 experts, top-1": ({"top_k": 1}, {"parameters_active": 47e6, "flops": 261e9}),
    "8 experts, top-2": (
        {},
        {"parameters_total": 120e6, "parameters_active": 62e6, "flops": 275e9},
    ),
    "8 experts, top-3": ({"top_k": 3}, {"parameters_active": 78e6, "flops": 289e9}),
    "16 experts, top-2": ({"experts": 16}, {"parameters_total": 178e6}),
    "without MoE": ({"experts": 0}, {"flops": 245e9}),
}
"""Row → settings and the paper's figures."""


def magpie_row(settings: dict[str, Any], published: dict[str, float]) -> dict[str, Any]:
    """One configuration of `magpie_mednext_l`, which segments alone as in the paper."""
    with torch.device("meta"):
        model = create_model("magpie_mednext_l", ("seg",), **settings).eval()
    total, active = parameter_counts(model)
    return {
        "settings": settings,
        "parameters_total": total,
        "parameters_active": active,
        "flops": count_flops(model, study_for(model, FLOPS_SIZE)),
        "published": published,
    }


def main() -> None:
    """Measure and write."""
    rows = [describe(name, StepBench()) for name in tqdm(list_models(), unit="model")]
    magpie = {row: magpie_row(*about) for row, about in tqdm(MAGPIE_TABLES.items())}
    write_json(RESULT, {"models": rows, "magpie_mednext_l": magpie, "machine": machine()})


if __name__ == "__main__":
    main()
