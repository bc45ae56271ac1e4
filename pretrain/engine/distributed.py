"""What the processes of a run tell each other; with one process every function is the identity."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")


def world() -> tuple[int, int]:
    """Rank of this process and number of processes."""
    if not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def gather(tensor: Tensor) -> Tensor:
    """Rows of all ranks, in the order of the ranks, with gradients.

    Args:
        tensor: [N, ...], the same shape on every rank.

    Returns:
        [ranks · N, ...]. The gradient of a row goes back to the rank that it came from, summed
        over all ranks that used it.
    """
    if world()[1] == 1:
        return tensor
    from torch.distributed.nn.functional import all_gather

    return torch.cat(list(all_gather(tensor.contiguous())))


def mean(tensor: Tensor) -> Tensor:
    """The mean over the ranks, without gradient."""
    if world()[1] == 1:
        return tensor.detach()
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / world()[1]


def add(tensor: Tensor, device: torch.device) -> Tensor:
    """The sum over the ranks of what lies in main memory, without gradient."""
    if world()[1] == 1:
        return tensor
    summed = tensor.to(device, copy=True)
    dist.all_reduce(summed)
    return summed.cpu()


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Layers that normalise over the studies of one process."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm)]


@torch.no_grad()
def share_statistics(module: nn.Module) -> None:
    """Average the running statistics of batch norms over the ranks, in place.

    Each rank sees other studies; a checkpoint holds the buffers of one rank for all of them.
    """
    if world()[1] == 1:
        return
    for layer in batch_norms(module):
        for running in (layer.running_mean, layer.running_var):
            if running is not None:
                running.copy_(mean(running))


def total(count: int, device: torch.device) -> int:
    """The sum over the ranks."""
    if world()[1] == 1:
        return count
    summed = torch.tensor(count, device=device)
    dist.all_reduce(summed)
    return int(summed)


def any_rank(flag: bool, device: torch.device) -> bool:
    """True on all ranks if it is true on one."""
    if world()[1] == 1:
        return flag
    agreed = torch.tensor(int(flag), device=device)
    dist.all_reduce(agreed, op=dist.ReduceOp.MAX)
    return bool(agreed)


def gather_objects(content: T) -> list[T]:
    """Something small of each rank, in the order of the ranks."""
    if world()[1] == 1:
        return [content]
    found: list[Any] = [None] * world()[1]
    dist.all_gather_object(found, content)
    return found


def barrier() -> None:
    """Wait for the other ranks."""
    if world()[1] > 1:
        dist.barrier()


def first_decides(decide: Callable[[], T], patience: timedelta | None = None) -> T:
    """What a function returns on rank 0, on all ranks; an error that it raises is raised on all.

    Args:
        decide: Called on rank 0 only; its result must be picklable.
        patience: How long the others wait for it, if longer than for anything else.
    """
    rank, count = world()
    if count == 1:
        return decide()
    group: Any = dist.new_group(backend="gloo", timeout=patience) if patience else None
    answer: list[Any] = [None, None]
    if rank == 0:
        try:
            answer[0] = decide()
        except Exception as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0, group=group)
    if group is not None:
        dist.destroy_process_group(group)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]
