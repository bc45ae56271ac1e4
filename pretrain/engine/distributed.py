"""What the processes of a run tell each other; with one process every function is the identity."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")
Statistics = list[tuple[Tensor, Tensor]]
"""Buffers, each with a copy of what it was."""


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
    return tensor if world()[1] == 1 else _Gather.apply(tensor)


class _Gather(torch.autograd.Function):
    """`gather`; each rank's loss has a gradient for the rows of all."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        rank, count = world()
        ctx.own = slice(rank * len(tensor), (rank + 1) * len(tensor))
        parts = [torch.empty_like(tensor) for _ in range(count)]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        summed = upstream.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(summed)
        return summed[ctx.own]


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


def keep_statistics(module: nn.Module) -> Statistics:
    """The running statistics of batch norms, as they are before a step that may be skipped."""
    return [(kept, kept.clone()) for layer in batch_norms(module) for kept in layer.buffers()]


def restore_statistics(statistics: Statistics) -> None:
    """Put back, in place, what `keep_statistics` copied."""
    for kept, copy in statistics:
        kept.copy_(copy)


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


def first_decides(decide: Callable[[], T]) -> T:
    """What a function returns on rank 0, on all ranks; an error that it raises is raised on all.

    Args:
        decide: Called on rank 0 only; its result must be picklable.
    """
    rank, count = world()
    if count == 1:
        return decide()
    answer: list[Any] = [None, None]
    if rank == 0:
        try:
            answer[0] = decide()
        except Exception as error:
            answer[1] = error
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]
