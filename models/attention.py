"""Self-attention within each study of a ragged pack of tokens: exact, without padding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.position import rotate


def packed_attention(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """Attention of each token over the tokens of its own study.

    Args:
        q: [N, heads, head_width], study after study; `k` and `v` alike.
        k: Keys.
        v: Values.
        lengths: Tokens of each study, N in all.

    Returns:
        [N, heads, head_width].
    """
    # While compiling, lengths are symbols: a comparison would bind the graph to these numbers.
    if not torch.compiler.is_compiling() and len(set(lengths)) == 1:
        q, k, v = (x.unflatten(0, (len(lengths), -1)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1)
    parts = zip(*(x.split(lengths) for x in (q, k, v)), strict=True)
    return torch.cat(
        [
            F.scaled_dot_product_attention(*(x.transpose(0, 1).unsqueeze(0) for x in study))[
                0
            ].transpose(0, 1)
            for study in parts
        ]
    )


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], lengths: list[int]) -> Tensor:
        """Mixed tokens.

        Args:
            x: [N, C], study after study.
            rotary: Cosine and sine of `position.rotary_angles`.
            lengths: Tokens of each study.

        Returns:
            [N, C].
        """
        qkv = self.qkv(x).unflatten(1, (3, self.heads, -1))
        pair, v = qkv.split((2, 1), dim=1)
        q, k = rotate(pair, rotary).unbind(1)
        return self.out(packed_attention(q, k, v.squeeze(1), lengths).flatten(1))
