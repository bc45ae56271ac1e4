"""What a mixture of experts costs beside a dense layer, and as its experts grow in number.

    python tests/benchmarks/moe.py [tokens]

Forward and backward pass of one layer in float32, on one thread, at the sizes of the flagship's
presets: a dense layer of the active width and mixtures of 8 to 64 experts with two chosen, in
turns. Writes medians, and their ratios to the dense layer and to 8 experts, to
tests/benchmarks/results/moe.json, beside machine and versions. Run it on a quiet machine. The
tokens are those that a default pretraining step shows the trunk; with few of them, reading and
writing the weights of 64 experts takes longer than the arithmetic.
"""

import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from gliomoe.data_shards.files import write_json
from gliomoe.launch.runs import machine
from gliomoe.models import create_model
from gliomoe.models.moe.layer import sparse_feed_forward

RESULT = Path(__file__).parent / "results/moe.json"
PRESETS = ("gliomoe_tiny", "gliomoe_small", "gliomoe_base")
EXPERTS = (8, 16, 32, 64)
TOP_K = 2
TOKENS = 16 * 2 * 432
"""Sixteen studies, two views of 96³ each, a quarter of the 1,728 positions visible."""
TURNS = 9


def step(layer: nn.Module, x: Tensor, upstream: Tensor) -> float:
    """Seconds of a forward and a backward pass."""
    layer.zero_grad()
    x.grad = None
    begun = time.perf_counter()
    output = layer(x)
    output = output[0] if isinstance(output, tuple) else output
    output.backward(upstream)
    return time.perf_counter() - begun


def measure(width: int, hidden: int, tokens: int) -> dict:
    """All layers of one size, in turns, after a turn to warm up."""
    torch.manual_seed(0)
    x, upstream = torch.randn(tokens, width, requires_grad=True), torch.randn(tokens, width)
    arms = {f"experts_{n}": sparse_feed_forward(width, hidden, n, TOP_K) for n in EXPERTS}
    arms = {"dense": sparse_feed_forward(width, hidden, 1, TOP_K), **arms}
    turns: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(TURNS + 1):
        for name, layer in arms.items():
            seconds = step(layer, x, upstream)
            if turn:
                turns[name].append(seconds)
    medians = {name: statistics.median(seconds) for name, seconds in turns.items()}
    few = medians[f"experts_{EXPERTS[0]}"]
    return {
        "width": width,
        "expert_hidden": hidden,
        "milliseconds": {name: round(1e3 * s, 2) for name, s in medians.items()},
        "times_dense": {name: round(s / medians["dense"], 3) for name, s in medians.items()},
        "times_8_experts": {n: round(s / few, 3) for n, s in medians.items() if n != "dense"},
    }


def sizes(preset: str) -> tuple[int, int]:
    """Width and hidden channels of an expert of a preset."""
    with torch.device("meta"):
        config = create_model(preset).encoder.config
    return config.width, config.expert_hidden


def main(tokens: int) -> None:
    """Measure every preset and write."""
    torch.set_num_threads(1)
    result = {preset: measure(*sizes(preset), tokens) for preset in PRESETS}
    about = {"tokens": tokens, "top_k": TOP_K, "threads": 1, "turns": TURNS}
    write_json(RESULT, {**about, **result, "machine": machine()})
    print(RESULT.read_text())


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else TOKENS)
