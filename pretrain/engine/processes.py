"""The processes that train together: how they find each other at the start."""

import atexit
import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.faults.watch import RankError
from gliomoe.pretrain.sections import EngineConfig

PATIENCE = 4
"""Times `engine.timeout` that starting or writing a checkpoint may take."""


def start_processes(config: EngineConfig) -> tuple[torch.device, dist.Store | None]:
    """Join the processes that `torchrun` started, or be the only one.

    Returns:
        This process's device, and what the processes share beside the process group, if there are
        several: its own connection to the store of the run.

    Raises:
        UsageError: If the environment describes only a part of them.
        RankError: If they do not find each other within `engine.timeout`.
    """
    local = int(os.environ.setdefault("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if dist.is_initialized():
        return device, None
    # The last fence: whoever hangs is found, and named, much sooner (`faults.watch`). DeepSpeed
    # makes groups of its own, for which it can only be set as the default.
    fence = timedelta(seconds=(PATIENCE + 1) * config.timeout)
    distributed_c10d.default_pg_timeout = distributed_c10d.default_pg_nccl_timeout = fence
    store, rank, world = _meet(config.timeout)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        timeout=fence,
        store=dist.PrefixStore("group", store),
        rank=rank,
        world_size=world,
    )
    # Not before the process ends: DeepSpeed keeps groups in module globals.
    atexit.register(dist.destroy_process_group)
    return device, dist.PrefixStore("watch", store.clone()) if world > 1 else None


def _meet(timeout: float) -> tuple[dist.Store, int, int]:
    """The store that the processes share, this one's rank, and their number."""
    if os.environ.setdefault("WORLD_SIZE", "1") == "1":
        os.environ["RANK"] = "0"
        return dist.HashStore(), 0, 1
    try:
        return next(dist.rendezvous("env://", timeout=timedelta(seconds=timeout)))
    except ValueError as error:  # a variable is missing
        raise UsageError(f"{error}; launch/pretrain.sh sets it") from error
    except dist.DistError as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise RankError(
            f"rank {os.environ['RANK']}: the {os.environ['WORLD_SIZE']} processes did not all meet "
            f"at {place} ({str(error).splitlines()[0]}); are all nodes started, is the port open?",
            UsageError.exit_code,
        ) from error
