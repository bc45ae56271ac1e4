"""Seconds and activation memory of a pretraining step, ours beside dense masked reconstruction.

    python tests/benchmarks/pretraining_step.py [--quick] [--minutes N]

Forward and backward pass in float32 on two threads, one study of four sequences, crops of 96³,
networks of the same number of parameters (± 10 %): the flagship's step (`mae`), the same trunk
without token dropping, the flagship with patches of 16³ as ViTAutoEnc has, and MONAI's SwinUNETR
and ViTAutoEnc and nnU-Net's residual-encoder U-Net, which see masked images and give whole ones.
Then what leaving out air adds: training on views of a phantom head at 1 mm, inference on a whole
one at 2 mm.

Arms take turns; the first turn is left out where an arm had more. Memory is what autograd keeps
for the backward pass at the end of the forward pass, weights left out, each storage once
(`saved_tensors_hooks`). Writes tests/benchmarks/results/pretraining_step.json; with `--quick` all
is small, proves nothing, and is only printed. Run it on a quiet machine with 20 GB.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pretraining_arms import FULL, QUICK, STUDIES, Arm, Scale, air_arms, step_arms
from torch import Tensor
from tqdm import tqdm

from gliomoe.data_shards.files import write_json
from gliomoe.launch.runs import machine

RESULT = Path(__file__).parent / "results/pretraining_step.json"
THREADS = 2
TURNS = 4


def kept_bytes(arm: Arm) -> int:
    """Bytes that the graph of one forward pass keeps, but for weights."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in arm.module.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    # The graph lives on until the hook has seen all of it, so no address is given out twice.
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = arm.run()
    del loss
    return sum(kept.values())


def seconds(arm: Arm) -> float:
    """One step."""
    begun = time.perf_counter()
    loss = arm.run()
    if loss is not None:
        loss.backward()
    spent = time.perf_counter() - begun
    assert loss is None or loss.isfinite()
    for parameter in arm.module.parameters():
        parameter.grad = None
    return spent


def take_turns(arms: Mapping[str, Arm], minutes: float, bar: tqdm) -> dict[str, list[float]]:
    """Every arm once, then again in turns as long as there is time for the next."""
    end = time.monotonic() + 60 * minutes
    turns: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(TURNS):
        for name, arm in arms.items():
            if turn and turns[name][-1] > end - time.monotonic():
                continue
            bar.set_postfix_str(name)
            turns[name].append(seconds(arm))
            bar.update()
    return turns


def figures(arms: Mapping[str, Arm], minutes: float, bar: tqdm) -> dict[str, dict[str, Any]]:
    """Median seconds, turns, activation memory (of training) and size of each arm."""
    kept = {}
    for name, arm in arms.items():
        bar.set_postfix_str(f"{name}, memory")
        kept[name] = kept_bytes(arm)
    turns = take_turns(arms, minutes, bar)
    return {
        name: {
            "seconds": round(statistics.median(turns[name][1:] or turns[name]), 3),
            "turns": [round(turn, 3) for turn in turns[name]],
            **({"activation_bytes": kept[name]} if kept[name] else {}),
            "parameters": arm.parameters,
            **arm.notes,
        }
        for name, arm in arms.items()
    }


def check_sizes(arms: Mapping[str, Arm]) -> None:
    """Refuse arms whose parameters are not ours within a tenth."""
    for name, arm in arms.items():
        ratio = arm.parameters / arms["ours"].parameters
        if not 0.9 <= ratio <= 1.1:
            raise SystemExit(f"{name} has {ratio:.2f} of our parameters; change its settings")


def measure(scale: Scale, minutes: float) -> dict[str, Any]:
    """All figures; three quarters of the time go to steps without air."""
    with tempfile.TemporaryDirectory(prefix="gliomoe-") as scratch:
        heads = air_arms(scale, Path(scratch))
        with tqdm(desc="pretraining step", unit="step", disable=None) as bar:
            air = figures(heads, minutes / 4, bar)
            del heads
            rivals = step_arms(scale)
            if scale is FULL:
                check_sizes(rivals)
            steps = figures(rivals, minutes * 3 / 4, bar)
    ours = steps["ours"]
    for found in steps.values():
        found["times_ours"] = round(found["seconds"] / ours["seconds"], 2)
        found["memory_times_ours"] = round(found["activation_bytes"] / ours["activation_bytes"], 2)
    return {
        "setup": {
            "size": scale.size,
            "studies": STUDIES,
            "sequences": 4,
            "threads": torch.get_num_threads(),
            "dtype": "float32",
            "memory": "bytes that autograd keeps for the backward pass, weights left out",
        },
        "step": steps,
        "air": {
            "training": {**_gain(air, "training"), "spacing_mm": scale.spacing},
            "inference": {**_gain(air, "inference"), "spacing_mm": scale.head_spacing},
            **air,
        },
        "machine": machine(),
    }


def _gain(air: Mapping[str, dict[str, Any]], kind: str) -> dict[str, float]:
    """The share of positions with tissue, and how many times longer all positions take."""
    tissue, everything = air[f"{kind}_tissue"], air[f"{kind}_all"]
    return {
        "tissue_share_of_positions": round(tissue["tokens"] / everything["tokens"], 3),
        "times": round(everything["seconds"] / tissue["seconds"], 2),
    }


def main() -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small networks, nothing written")
    parser.add_argument("--minutes", type=float, default=7.0, help="for turns after the first")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    result = measure(QUICK if options.quick else FULL, options.minutes)
    if not options.quick:
        write_json(RESULT, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
