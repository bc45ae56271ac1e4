"""Fusion of the volumes of a study: a softmax-weighted sum over those that are there."""

import torch
from torch import Tensor, nn

from gliomoe.models.errors import ModelError

FUSIONS = ("scalar", "mean")


def segment_softmax(scores: Tensor, study: Tensor, studies: int) -> Tensor:
    """Softmax over the volumes of each study.

    Args:
        scores: [V] float.
        study: [V] int64, the study of each volume.
        studies: B.

    Returns:
        [V] float32; the weights of a study sum to 1.
    """
    scores = scores.float()
    highest = scores.new_full((studies,), float("-inf"))
    highest = highest.scatter_reduce(0, study, scores.detach(), "amax")
    shares = (scores - highest[study]).exp()
    return shares / shares.new_zeros(studies).index_add(0, study, shares)[study]


class Fusion(nn.Module):
    """Weights of the volumes of a study (MAGPIE, eq. 1-2).

    `scalar` learns one importance per sequence; `mean` weighs all volumes alike.
    """

    def __init__(self, kind: str, sequences: int):
        super().__init__()
        if kind not in FUSIONS:
            raise ModelError(f"unknown fusion {kind!r}; known: {', '.join(FUSIONS)}")
        self.kind = kind
        if kind == "scalar":
            self.by_sequence = nn.Parameter(torch.zeros(sequences))

    def forward(self, sequence: Tensor, study: Tensor, studies: int) -> Tensor:
        """Weights [V] float32 that sum to 1 over the volumes of each study."""
        if self.kind == "scalar":
            return segment_softmax(self.by_sequence[sequence], study, studies)
        return segment_softmax(torch.zeros_like(sequence), study, studies)

    def extra_repr(self) -> str:
        """Kind of fusion, for printing."""
        return self.kind
