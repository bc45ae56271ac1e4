"""The machines of a run, as the processes that were started see them."""

import os
from dataclasses import dataclass

import torch

from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine.engine import resolve_precision


@dataclass(frozen=True)
class Machines:
    """What a run is to run on."""

    processes: int
    nodes: int
    precision: str
    """`fp32`, `autocast` or `bf16`."""
    gpu: str | None = None
    """Name of the GPUs, None on CPU."""
    memory_bytes: int | None = None
    """Memory of a GPU."""


def find_machines(config: PretrainConfig) -> Machines:
    """Processes as `torchrun` counts them in the environment, and this process's GPU."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = torch.cuda.get_device_properties(0) if device.type == "cuda" else None
    return Machines(
        processes=processes,
        nodes=-(-processes // local),
        precision=resolve_precision(config.engine.precision, device),
        gpu=gpu.name if gpu else None,
        memory_bytes=gpu.total_memory if gpu else None,
    )
