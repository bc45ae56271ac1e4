"""The processes that train together: how they find each other at the start."""

import atexit
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from gliomoe.pretrain.sections import EngineConfig

PATIENCE = 4
"""Times `engine.timeout` that starting or writing a checkpoint may take."""


def start_processes(config: EngineConfig) -> tuple[torch.device, dist.Store | None]:
    """Join the processes that `torchrun` started, or be the only one.

    Returns:
        This process's device, and what the processes share beside the process group, if there are
        several: its own connection to the store of the run.
    """
    local = int(os.environ.setdefault("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if dist.is_initialized():
        return device, None
    backend = "nccl" if device.type == "cuda" else "gloo"
    # The last fence: whoever hangs is found, and named, much sooner (`faults.watch`). DeepSpeed
    # makes groups of its own, for which it can only be set as the default.
    fence = timedelta(seconds=(PATIENCE + 1) * config.timeout)
    distributed_c10d.default_pg_timeout = distributed_c10d.default_pg_nccl_timeout = fence
    if "MASTER_ADDR" in os.environ:
        found = dist.rendezvous("env://", timeout=timedelta(seconds=config.timeout))
        store, rank, world = next(found)
    else:
        os.environ.update(RANK="0", WORLD_SIZE="1")
        store, rank, world = dist.HashStore(), 0, 1
    dist.init_process_group(
        backend,
        timeout=fence,
        store=dist.PrefixStore("group", store),
        rank=rank,
        world_size=world,
    )
    # Not before the process ends: DeepSpeed keeps groups in module globals.
    atexit.register(dist.destroy_process_group)
    return device, dist.PrefixStore("watch", store.clone()) if world > 1 else None
