"""Fusion of the volumes of a study: a softmax-weighted sum over those that are there."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.errors import ModelError

FUSIONS = ("scalar", "content", "mean")


def segment_softmax(scores: Tensor, study: Tensor, studies: int) -> Tensor:
    """Softmax over the volumes of each study.

    Args:
        scores: [V] float.
        study: [V] int64, the study of each volume.
        studies: B.

    Returns:
        [V] float32 or better; the weights of a study sum to 1.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    highest = scores.new_full((studies,), float("-inf"))
    highest = highest.scatter_reduce(0, study, scores.detach(), "amax")
    shares = (scores - highest[study]).exp()
    return shares / shares.new_zeros(studies).index_add(0, study, shares)[study]


class ContentScore(nn.Module):
    """Score of a volume at each place, from its features there (after MGMT-Net's CMAF, §3.1).

    CMAF's network sees the joined features of a fixed set of sequences. Here a network sees its
    volume and the table's row of its sequence, so that any number may come in any order. The
    score starts at 0 everywhere, and with it the fusion at the weights of `scalar`.
    """

    def __init__(self, channels: int, sequences: int):
        super().__init__()
        hidden = max(channels // 2, 1)
        self.hidden = nn.Linear(channels, hidden)
        self.by_sequence = nn.Parameter(torch.zeros(sequences, hidden))
        self.out = nn.Parameter(torch.zeros(hidden))

    def forward(self, x: Tensor, row: Tensor) -> Tensor:
        """Features [..., C] of a volume and its row of `by_sequence` → scores [..., 1]."""
        hidden = F.gelu(self.hidden(x) + row.to(x.dtype))
        return F.linear(hidden, self.out.unsqueeze(0))


class Fusion(nn.Module):
    """Weighted sum of the volumes of a study, weights a softmax over the volumes.

    `scalar` learns one importance per sequence (MAGPIE, eq. 1-2); `content` adds what the features
    of a volume say, place by place (after MGMT-Net, §3.1); `mean` weighs all volumes alike.

    Args:
        kind: One of `FUSIONS`.
        sequences: Rows of the table of sequences.
        channels: Of the features; `content` needs to know.
    """

    def __init__(self, kind: str, sequences: int, channels: int = 0):
        super().__init__()
        if kind not in FUSIONS:
            raise ModelError(f"unknown fusion {kind!r}; known: {', '.join(FUSIONS)}")
        self.kind = kind
        if kind != "mean":
            self.by_sequence = nn.Parameter(torch.zeros(sequences))
        if kind == "content":
            self.content = ContentScore(channels, sequences)

    def forward(
        self, volumes: Iterable[Tensor], sequence: Tensor, study: Tensor, studies: int
    ) -> list[Tensor]:
        """Fused features, one volume after the other: no study is held as a stack.

        Args:
            volumes: V feature maps [..., C], made as they are asked for; those of a study have
                one shape.
            sequence: [V] int64, within the table.
            study: [V] int64, ascending; best on the CPU, a GPU would have to be waited for.
            studies: B.

        Returns:
            [..., C] of each study, in order.

        Raises:
            ModelError: If a study has no volume.
        """
        owners = study.tolist()
        if empty := sorted(set(range(studies)) - set(owners)):
            raise ModelError(f"study number {empty[0]} of the batch has no sequence; leave it out")
        if self.kind == "content":
            return self._by_content(volumes, sequence, owners)
        shares = self.weights(sequence, study.to(sequence.device), studies).unbind()
        fused: dict[int, Tensor] = {}
        for x, share, owner in zip(volumes, shares, owners, strict=True):
            part = x * share.to(x.dtype)
            fused[owner] = fused[owner] + part if owner in fused else part
        return list(fused.values())

    def weights(self, sequence: Tensor, study: Tensor, studies: int) -> Tensor:
        """[V], the weight of each volume as far as its sequence decides; 1 in all in a study."""
        scores = torch.zeros_like(sequence) if self.kind == "mean" else self.by_sequence[sequence]
        return segment_softmax(scores, study, studies)

    def _by_content(
        self, volumes: Iterable[Tensor], sequence: Tensor, owners: list[int]
    ) -> list[Tensor]:
        """Softmax place by place in one pass: sums are scaled anew where a higher score comes."""
        sums: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        tables = self.by_sequence[sequence].unbind(), self.content.by_sequence[sequence].unbind()
        for x, base, row, owner in zip(volumes, *tables, owners, strict=True):
            score = base + self.content(x, row)
            score = score.to(torch.promote_types(score.dtype, torch.float32))
            if owner not in sums:
                sums[owner] = (x, torch.ones_like(score), score)
                continue
            total, norm, highest = sums[owner]
            top = torch.maximum(score, highest).detach()
            weight, fade = (score - top).exp(), (highest - top).exp()
            total = total * fade.to(x.dtype) + x * weight.to(x.dtype)
            sums[owner] = (total, norm * fade + weight, top)
        return [total / norm.to(total.dtype) for total, norm, _ in sums.values()]

    def extra_repr(self) -> str:
        """Kind of fusion, for printing."""
        return self.kind
