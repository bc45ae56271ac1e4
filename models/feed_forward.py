"""SwiGLU feed-forward layer (Shazeer 2020, "GLU Variants Improve Transformer")."""

import torch.nn.functional as F
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Gated feed-forward layer: down(silu(gate(x)) · up(x))."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [N, C] → [N, C]."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)
