"""One expert after the other, as an operator of its own with the gradient by hand.

Notable: each expert's activations stay in the cache from one layer to the next, only the input and
the first layer's output are kept for the gradient, and the gradient of the stacked weights is
written once, in place: autograd would make it as a list and copy it. `torch.compile` sees one
operator where it would break the graph at the numbers of tokens.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula


def looped_experts(
    x: Tensor, counts: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """SwiGLU layers over groups of rows, each output times a weight of its own.

    Args:
        x: [M, C], rows of expert 0, then those of expert 1, …
        counts: [E] int64, rows of each expert, M in all.
        weight: [M].
        gate_up: [E, 2 H, C].
        down: [E, C, H].

    Returns:
        [M, C].
    """
    # Read once, not again for the gradient.
    return torch.ops.gliomoe.looped_experts(x, counts.cpu(), weight, gate_up, down)[0]


# Not by `custom_op`, which imports all of `torch.compile` at the first call.
torch.library.define(
    "gliomoe::looped_experts",
    "(Tensor x, Tensor counts, Tensor weight, Tensor gate_up, Tensor down) -> (Tensor, Tensor)",
)
torch.library.define(
    "gliomoe::looped_experts_backward",
    "(Tensor upstream, Tensor hidden, Tensor x, Tensor counts, Tensor weight, Tensor gate_up, "
    "Tensor down) -> (Tensor, Tensor, Tensor, Tensor)",
)


@torch.library.impl("gliomoe::looped_experts", "default")
def _experts(
    x: Tensor, counts: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor
) -> tuple[Tensor, Tensor]:
    """The result, and the first layer's output [M, 2 H]."""
    out, hidden = torch.empty_like(x), x.new_empty(len(x), gate_up.shape[1])
    for expert, rows in _groups(counts):
        torch.mm(x[rows], gate_up[expert].T, out=hidden[rows])
        gate, up = hidden[rows].chunk(2, dim=1)
        # The second layer is linear: weights act on its input, which is narrower.
        active = F.silu(gate).mul_(up).mul_(weight[rows].unsqueeze(1))
        torch.mm(active, down[expert].T, out=out[rows])
    return out, hidden


@torch.library.impl("gliomoe::looped_experts_backward", "default")
def _gradients(
    upstream: Tensor,
    hidden: Tensor,
    x: Tensor,
    counts: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `x`, `weight`, `gate_up` and `down`."""
    x_gradient, weight_gradient = torch.empty_like(x), torch.empty_like(weight)
    gate_up_gradient, down_gradient = torch.empty_like(gate_up), torch.empty_like(down)
    for expert, rows in _groups(counts):
        gate, up = hidden[rows].chunk(2, dim=1)
        sigmoid, scale = torch.sigmoid(gate), weight[rows].unsqueeze(1)
        silu = gate * sigmoid
        active = silu * up
        inner = upstream[rows] @ down[expert]
        torch.sum(inner * active, dim=1, out=weight_gradient[rows])
        torch.mm(upstream[rows].T, active.mul_(scale), out=down_gradient[expert])
        inner.mul_(scale)
        # silu' = sigmoid + silu (1 - sigmoid); torch's own `silu_backward` is several times slower.
        slope = torch.addcmul(sigmoid, silu, 1 - sigmoid)
        both = torch.cat([slope.mul_(up).mul_(inner), silu.mul_(inner)], dim=1)
        torch.mm(both, gate_up[expert], out=x_gradient[rows])
        torch.mm(both.T, x[rows], out=gate_up_gradient[expert])
    return x_gradient, weight_gradient, gate_up_gradient, down_gradient


def _groups(counts: Tensor) -> Iterator[tuple[int, slice]]:
    """Number and rows of each expert."""
    start = 0
    for expert, count in enumerate(counts.tolist()):
        yield expert, slice(start, start + count)
        start += count


@torch.library.register_fake("gliomoe::looped_experts")
def _(
    x: Tensor, counts: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor
) -> tuple[Tensor, Tensor]:
    # Not `len`, which would bind a compiled graph to this number of rows.
    return torch.empty_like(x), x.new_empty(x.shape[0], gate_up.shape[1])


@torch.library.register_fake("gliomoe::looped_experts_backward")
def _(
    upstream: Tensor,
    hidden: Tensor,
    x: Tensor,
    counts: Tensor,
    weight: Tensor,
    gate_up: Tensor,
    down: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = x, weight, gate_up, down
    first, second, third, fourth = (torch.empty_like(part) for part in inputs)
    return first, second, third, fourth


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # of the second output there is none
    ctx.save_for_backward(output[1], *inputs)


def _backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, gate_up, down = torch.ops.gliomoe.looped_experts_backward(
        upstream.contiguous(), *ctx.saved_tensors
    )
    return x, None, weight, gate_up, down


torch.library.register_autograd("gliomoe::looped_experts", _backward, setup_context=_keep)


@register_flop_formula(torch.ops.gliomoe.looped_experts)
def _flops(x: Any, counts: Any, weight: Any, gate_up: Any, *_: Any, **__: Any) -> int:
    """Of the forward pass, from shapes: (2 H · C + H · C) multiplications and additions a row."""
    return 3 * x[0] * gate_up[1] * gate_up[2]


@register_flop_formula(torch.ops.gliomoe.looped_experts_backward)
def _flops_backward(
    upstream: Any, hidden: Any, x: Any, counts: Any, weight: Any, gate_up: Any, *_: Any, **__: Any
) -> int:
    """Twice those of the forward pass."""
    return 6 * x[0] * gate_up[1] * gate_up[2]
