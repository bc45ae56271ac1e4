"""Fusion of MRI features and gene embeddings, in the two places that MDL-CA has it.

The formulas are missing in the text at hand; they are derived from the words around them.
Shapes: S positions of a map, G genes, h hidden channels of the attention.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.recompute import Recomputable

NEGATIVE_SLOPE = 0.2


class CrossModalGraphAttention(Recomputable):
    """Every position of the MRI map attends to the genes (MDL-CA, eq. 13-15).

        e_si = LeakyReLU(aᵀ [W_f f_s ∥ W_g g_i]),  α_si = softmax over i,  f'_s = f_s + Σ α_si W g_i

    The sum is added to the feature: the text calls it an update that injects the genes.
    """

    def __init__(self, channels: int, gene_width: int, hidden: int):
        super().__init__()
        self.mri = nn.Linear(channels, hidden, bias=False)
        self.gene = nn.Linear(gene_width, hidden, bias=False)
        self.score = nn.Linear(2 * hidden, 1, bias=False)
        self.value = nn.Linear(gene_width, channels, bias=False)

    def forward(self, mri: Tensor, genes: Tensor) -> tuple[Tensor, Tensor]:
        """The enhanced map and the attention.

        Args:
            mri: [B, C, D, H, W].
            genes: [B, G, F].

        Returns:
            [B, C, D, H, W], and [B, G, D, H, W] float32 with sum 1 over the genes.
        """
        # aᵀ [u ∥ v] = a₁ᵀ u + a₂ᵀ v: no tensor of S × G × 2 h.
        of_mri, of_gene = self.score.weight.chunk(2, dim=1)
        positions = mri.flatten(2).transpose(1, 2)
        rows = F.linear(self.mri(positions), of_mri)
        columns = F.linear(self.gene(genes), of_gene).transpose(1, 2)
        scores = F.leaky_relu((rows + columns).float(), NEGATIVE_SLOPE)
        attention = scores.softmax(dim=2)
        injected = attention.to(mri.dtype) @ self.value(genes).to(mri.dtype)
        sides = mri.shape[2:]
        enhanced = mri + injected.transpose(1, 2).unflatten(2, sides)
        return enhanced, attention.transpose(1, 2).unflatten(2, sides)


class CrossAttentionFusion(Recomputable):
    """The genomic embedding asks how much of each modality to take, position by position.

        h_m = W_m x_m + b_m (eq. 8-9),  β_m = wᵀ tanh(Q h_genomic + K h_m),
        α = softmax of β over the modalities (eq. 10-11),  fused = Σ α_m h_m (eq. 12)

    The paper describes both cross-attention, with the genomic embedding as the query and MRI
    features as keys and values, and weights of each modality whose sum is fused. These agree if
    the query is the genomic embedding, broadcast to every position as the text says, and keys and
    values are the MRI feature there and the embedding itself: additive attention with h hidden
    channels. A softmax over MRI positions alone could not keep the map's shape, as it must.
    """

    def __init__(self, channels: int, gene_width: int, width: int, hidden: int):
        super().__init__()
        self.mri = nn.Linear(channels, width)
        self.genomic = nn.Linear(gene_width, width)
        self.query = nn.Linear(width, hidden)
        self.key = nn.Linear(width, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, mri: Tensor, genomic: Tensor) -> tuple[Tensor, Tensor]:
        """The fused map and the weight of MRI in it.

        Args:
            mri: [B, C, D, H, W].
            genomic: [B, F].

        Returns:
            [B, width, D, H, W], and [B, 1, D, H, W] float32 in 0 to 1.
        """
        image = self.mri(mri.movedim(1, -1))
        genes = self.genomic(genomic)[:, None, None, None].expand_as(image)
        embeddings = torch.stack([image, genes.to(image.dtype)], dim=1)
        hidden = torch.tanh(self.query(genes).unsqueeze(1) + self.key(embeddings))
        weights = self.score(hidden).float().softmax(dim=1)
        fused = (weights.to(image.dtype) * embeddings).sum(1)
        return fused.movedim(-1, 1), weights[:, 0].movedim(-1, 1)
