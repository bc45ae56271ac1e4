"""Time and memory of deformable large-kernel attention in both modes, forward and backward.

    python tests/benchmarks/dlka.py [--side N] [--channels N] [--threads N]

measures one D-LKA block per mode, and the block without its deformable part, each in a process of
its own, and writes tests/benchmarks/results/dlka.json. Run it on a quiet machine. The sizes given
by default are those of `magpie_mednext_l` at a quarter of the resolution of 128³.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from gliomoe.data_shards.files import write_json
from gliomoe.launch.runs import machine

RESULT = Path(__file__).parent / "results/dlka.json"
CASES = ("none", "warp", "deformable")

_ONE = """
import json, resource, sys, time
import torch
from torch import nn
from gliomoe.models.blocks.dlka import DeformableLargeKernelAttention
mode, side, channels, threads = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
torch.manual_seed(0)
block = DeformableLargeKernelAttention(channels, "warp" if mode == "none" else mode)
if mode == "none":
    block.deform = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
else:
    nn.init.normal_(block.deform.offsets.weight, std=0.05)
x = torch.randn(1, channels, side, side, side, requires_grad=True)
def step():
    block(x).square().mean().backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
times = []
for _ in range(5):
    begun = time.perf_counter()
    step()
    times.append(time.perf_counter() - begun)
print(json.dumps({"seconds": round(sorted(times)[2], 4),
                  "memory_mb": round((peak - before) / 1024, 1)}))
"""


def measure(mode: str, side: int, channels: int, threads: int) -> dict[str, float]:
    """Median seconds of a step, and what the first one added to the memory of its process."""
    command = [sys.executable, "-c", _ONE, mode, *map(str, (side, channels, threads))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main() -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=32, help="voxels of the map")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    sizes = (options.side, options.channels, options.threads)
    modes = {mode: measure(mode, *sizes) for mode in CASES}
    for mode, figures in modes.items():
        print(mode, figures)
    write_json(RESULT, {"machine": machine(), "sizes": vars(options), "modes": modes})


if __name__ == "__main__":
    main()
