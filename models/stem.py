"""Channel-agnostic stems: weights by sequence, a non-linearity, then fusion over the volumes.

Notable: the non-linearity comes before the sum. A linear stem with an additive embedding would
make the sum an average of the images, in which the contents of two sequences could be exchanged
unnoticed. A sequence that training never saw takes the weights of `other`, which start at the
base that all sequences share.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.fusion import Fusion

SEQUENCES = ("t1", "t1ce", "t2", "flair", "pd", "dwi", "adc", "swi", "t2star", "asl", "other")
"""Canonical sequences; the position of a name is its number in a batch."""

OTHER = SEQUENCES.index("other")


def known_sequence(sequence: Tensor) -> Tensor:
    """Sequence numbers, those outside the table replaced by `other`."""
    return torch.where((sequence >= 0) & (sequence < len(SEQUENCES)), sequence, OTHER)


@torch.no_grad()
def share_other(module: nn.Module, trained: Iterable[str]) -> None:
    """Give every sequence that is not among `trained` the weights of `other`, in place.

    Args:
        module: Whatever holds parameters named `by_sequence`, [S, …].
        trained: Canonical names of the sequences that training saw.
    """
    unseen = [n for n, name in enumerate(SEQUENCES) if name not in set(trained) and n != OTHER]
    for name, parameter in module.named_parameters():
        if unseen and name.rsplit(".", 1)[-1] == "by_sequence":
            parameter[unseen] = parameter[OTHER].clone()


class SequenceTable(nn.Module):
    """A parameter with one value per sequence: a shared base plus a part of its own."""

    def __init__(self, shape: tuple[int, ...], std: float):
        super().__init__()
        self.base = nn.Parameter(torch.empty(shape))
        self.by_sequence = nn.Parameter(torch.empty(len(SEQUENCES), *shape))
        nn.init.trunc_normal_(self.base, std=std)
        nn.init.trunc_normal_(self.by_sequence, std=std)
        with torch.no_grad():
            self.by_sequence[OTHER] = 0

    def forward(self, sequence: Tensor) -> Tensor:
        """Values [V, …] of the sequences [V]."""
        return self.base + self.by_sequence[sequence]


class PatchStem(nn.Module):
    """Patches of all volumes of a study → one token per position."""

    def __init__(self, patch_size: int, hidden: int, width: int, fusion: str):
        super().__init__()
        self.weight = SequenceTable((hidden, patch_size**3), std=patch_size**-1.5)
        self.bias = SequenceTable((hidden,), std=0.1)
        self.fusion = Fusion(fusion, len(SEQUENCES), hidden)
        self.norm = nn.LayerNorm(hidden)
        self.projection = nn.Linear(hidden, width)

    def forward(self, rows: list[Tensor], sequence: Tensor, study: Tensor, studies: int) -> Tensor:
        """Fused tokens.

        Args:
            rows: For each volume the patches at the positions of its study, [n, P³]; all volumes
                of a study bring the same positions in the same order.
            sequence: [V] int64, within the table.
            study: [V] int64, ascending; best on the CPU.
            studies: B.

        Returns:
            [N, width], study after study.
        """
        tables = zip(rows, self.weight(sequence), self.bias(sequence), strict=True)
        hidden = (F.gelu(F.linear(x, weight, bias)) for x, weight, bias in tables)
        return self.projection(self.norm(torch.cat(self.fusion(hidden, sequence, study, studies))))


class DetailStem(nn.Module):
    """Voxels of all volumes of a study → one map at full resolution."""

    def __init__(self, channels: int, fusion: str):
        super().__init__()
        self.weight = SequenceTable((channels, 1), std=1.0)
        self.bias = SequenceTable((channels,), std=0.5)
        self.fusion = Fusion(fusion, len(SEQUENCES), channels)

    def forward(self, voxels: Tensor, sequence: Tensor, study: Tensor, studies: int) -> Tensor:
        """Fused map.

        Args:
            voxels: [V, 1, D, H, W].
            sequence: [V] int64, within the table.
            study: [V] int64, ascending; best on the CPU.
            studies: B.

        Returns:
            [B, C, D, H, W] in channels-last memory.
        """
        x = voxels.squeeze(1).unsqueeze(-1)
        tables = zip(x, self.weight(sequence), self.bias(sequence), strict=True)
        hidden = (F.leaky_relu(F.linear(*parts), 0.01) for parts in tables)
        return torch.stack(self.fusion(hidden, sequence, study, studies)).permute(0, 4, 1, 2, 3)
