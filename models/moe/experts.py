"""Feed-forward experts with stacked weights, applied to tokens sorted by expert.

Notable: where the hardware has grouped matrix products (bfloat16 on compute capability 9.0 and
up), all experts take two of them; anywhere else `looped_experts` takes one expert after the other.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.moe.looped import looped_experts


class Experts(nn.Module):
    """E SwiGLU layers of one shape (MAGPIE, FFN_e of eq. 4).

    Attributes:
        exchange: Where processes share the experts out: takes the experts at home as a function,
            then the arguments of `forward`, and has each row worked on where its expert is.
    """

    exchange: Callable[..., Tensor] | None = None

    def __init__(self, experts: int, width: int, hidden: int):
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * hidden, width))
        self.down = nn.Parameter(torch.empty(experts, width, hidden))
        nn.init.trunc_normal_(self.gate_up, std=width**-0.5)
        nn.init.trunc_normal_(self.down, std=hidden**-0.5)

    def forward(self, x: Tensor, counts: Tensor, weight: Tensor) -> Tensor:
        """Each expert on its own tokens, times the token's weight.

        Args:
            x: [M, C], the tokens of expert 0, then those of expert 1, …
            counts: [E] int64, tokens of each expert, M in all.
            weight: [M], what the output of each token is multiplied by.

        Returns:
            [M, C] in the type of the arithmetic.
        """
        if self.exchange is None:
            return self._compute(x, counts, weight)
        return self.exchange(self._compute, x, counts, weight)

    def _compute(self, x: Tensor, counts: Tensor, weight: Tensor) -> Tensor:
        """The experts that are here, on their own tokens; as `forward`."""
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        else:
            dtype = x.dtype
        x, gate_up, down = (part.to(dtype) for part in (x, self.gate_up, self.down))
        run = grouped_experts if has_grouped_mm(x, gate_up, down) else looped_experts
        return run(x, counts, weight.to(dtype), gate_up, down)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        experts, width, hidden = self.down.shape
        return f"experts={experts}, width={width}, hidden={hidden}"


def has_grouped_mm(x: Tensor, *weights: Tensor) -> bool:
    """Whether `F.grouped_mm` takes these and is fast here; it wants rows of 16 bytes times n."""
    if not x.is_cuda or x.dtype != torch.bfloat16 or not hasattr(F, "grouped_mm"):
        return False
    whole = all(side % 8 == 0 for weight in weights for side in weight.shape[1:])
    return whole and torch.cuda.get_device_capability(x.device) >= (9, 0)


def grouped_experts(
    x: Tensor, counts: Tensor, weight: Tensor, gate_up: Tensor, down: Tensor
) -> Tensor:
    """All experts in two grouped products; arguments as those of `looped_experts`."""
    ends = counts.cumsum(0).to(torch.int32)
    gate, up = F.grouped_mm(x, gate_up.transpose(1, 2), offs=ends).chunk(2, dim=-1)
    # The second layer is linear: weights act on its input, which is narrower.
    hidden = (F.silu(gate) * up * weight.unsqueeze(1)).contiguous()
    return F.grouped_mm(hidden, down.transpose(1, 2), offs=ends)
