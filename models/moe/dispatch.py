"""Tokens to the rows of their experts and back.

Notable: both ways are one gather, in the forward and in the backward pass. Autograd's own gradient
of a gather adds row after row.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Plan:
    """Which of M = N · K rows, sorted by expert, is which choice of which token."""

    order: Tensor
    """[M] int64, choice n · K + k of each row."""
    place: Tensor
    """[M] int64, row of each choice; the inverse of `order`."""
    top_k: int


def make_plan(choice: Tensor) -> Plan:
    """Sort choices [N, K] by expert; those of one expert stay in the order of the tokens."""
    order = choice.flatten().argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return Plan(order, place, choice.shape[1])


def dispatch(x: Tensor, plan: Plan) -> Tensor:
    """Tokens [N, C] → rows [M, C], each token once for each of its experts."""
    return _Dispatch.apply(x, plan.order, plan.place, plan.top_k)


def combine(rows: Tensor, plan: Plan) -> Tensor:
    """Rows [M, C] → the sum of each token's rows [N, C]."""
    return _Combine.apply(rows, plan.order, plan.place, plan.top_k)


def _spread(x: Tensor, order: Tensor, top_k: int) -> Tensor:
    return x.index_select(0, order.div(top_k, rounding_mode="floor") if top_k > 1 else order)


def _gather(rows: Tensor, place: Tensor, top_k: int) -> Tensor:
    """The sum of each token's rows; `embedding_bag` holds no copy of them."""
    return F.embedding_bag(place.view(-1, top_k), rows, mode="sum")


class _Dispatch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, place: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(place)
        ctx.top_k = top_k
        return _spread(x, order, top_k)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (place,) = ctx.saved_tensors
        return _gather(upstream, place, ctx.top_k), None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, place: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(order)
        ctx.top_k, ctx.dtype = top_k, rows.dtype
        return _gather(rows, place, top_k)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (order,) = ctx.saved_tensors
        return _spread(upstream.to(ctx.dtype), order, ctx.top_k), None, None, None
