"""What the processes of a run tell each other; with one process every function is the identity."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


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


def gather_objects(content: Any) -> list[Any]:
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
