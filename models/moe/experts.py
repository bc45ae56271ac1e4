"""Feed-forward experts with stacked weights, applied to tokens sorted by expert.

Notable: two ways to the same result, a loop over the experts anywhere and one grouped matrix
product where the hardware has it (bfloat16 on compute capability 9.0 and up).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Experts(nn.Module):
    """E SwiGLU layers of one shape (MAGPIE, FFN_e of eq. 4)."""

    def __init__(self, experts: int, width: int, hidden: int):
        super().__init__()
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * hidden, width))
        self.down = nn.Parameter(torch.empty(experts, width, hidden))
        nn.init.trunc_normal_(self.gate_up, std=width**-0.5)
        nn.init.trunc_normal_(self.down, std=hidden**-0.5)

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Each expert on its own tokens.

        Args:
            x: [M, C], the tokens of expert 0, then those of expert 1, …
            counts: [E] int64, tokens of each expert, M in all.

        Returns:
            [M, C].
        """
        if has_grouped_mm(x):
            return grouped_experts(x, counts, self.gate_up, self.down)
        return looped_experts(x, counts, self.gate_up, self.down)

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        experts, width, hidden = self.down.shape
        return f"experts={experts}, width={width}, hidden={hidden}"


def has_grouped_mm(x: Tensor) -> bool:
    """Whether the grouped matrix product is fast for these tokens here."""
    if not x.is_cuda or not hasattr(F, "grouped_mm"):
        return False
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else x.dtype
    return dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) >= (9, 0)


def looped_experts(x: Tensor, counts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """One expert after the other; `unbind` spares the gradient a full stack per expert."""
    outputs = []
    parts = zip(x.split(counts.tolist()), gate_up.unbind(), down.unbind(), strict=True)
    for tokens, weight_in, weight_out in parts:
        gate, up = F.linear(tokens, weight_in).chunk(2, dim=-1)
        outputs.append(F.linear(F.silu(gate) * up, weight_out))
    return torch.cat(outputs)


def grouped_experts(x: Tensor, counts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """All experts in two grouped products, in bfloat16: `grouped_mm` knows no autocast."""
    ends = counts.cumsum(0).to(torch.int32)
    x, gate_up, down = (part.to(torch.bfloat16) for part in (x, gate_up, down))
    gate, up = F.grouped_mm(x, gate_up.transpose(1, 2), offs=ends).chunk(2, dim=-1)
    return F.grouped_mm((F.silu(gate) * up).contiguous(), down.transpose(1, 2), offs=ends)
