"""The light decoder of masked reconstruction: a small transformer, then one projection a sequence.

The transformer runs once for each position, over those that the encoder saw and those to predict;
the patch of every sequence of the study is a linear function of the same token.

Shapes: B studies, V volumes of the complete studies, N tokens, M predicted positions of all
studies, P pairs of a predicted position and a volume, W width, S sequences, p patch side.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.models.attention import Attention
from gliomoe.models.features import Features
from gliomoe.models.feed_forward import FeedForward
from gliomoe.models.position import centres, rotary_angles
from gliomoe.models.tissue import patches
from gliomoe.pretrain.samples.masking import Mask

_HEAD_WIDTH = 64
_EXPANSION = 8 / 3


@dataclass(frozen=True)
class PatchPairs:
    """Every predicted position with every volume of its study, ordered by sequence."""

    token: Tensor
    """[P] int64, row among the M predicted positions."""
    volume: Tensor
    """[P] int64."""
    study: Tensor
    """[P] int64."""
    position: Tensor
    """[P, 3] int64, patch index along D, H, W."""
    sequences: list[tuple[int, int]]
    """Sequence number and how many of the pairs belong to it, in the order of the pairs."""


def pair_patches(mask: Mask, complete: StudyBatch) -> PatchPairs:
    """Pair the predicted positions with the volumes of their studies."""
    where = mask.predict.nonzero()
    counts = torch.bincount(where[:, 0], minlength=complete.studies)
    first = counts.cumsum(0) - counts
    rows = counts[complete.study]
    volume = torch.arange(len(rows), device=rows.device).repeat_interleave(rows)
    within = torch.arange(len(volume), device=rows.device) - (rows.cumsum(0) - rows)[volume]
    token = first[complete.study][volume] + within
    order = complete.sequence[volume].argsort(stable=True)
    token, volume = token[order], volume[order]
    present, sizes = complete.sequence[volume].unique_consecutive(return_counts=True)
    return PatchPairs(
        token=token,
        volume=volume,
        study=where[token, 0],
        position=where[token, 1:],
        sequences=list(zip(present.tolist(), sizes.tolist(), strict=True)),
    )


def target_patches(pairs: PatchPairs, complete: StudyBatch, patch_size: int) -> Tensor:
    """The patch of each pair, [P, p³] float32."""
    grid = patches(complete.voxels, patch_size)
    return grid[pairs.volume, *pairs.position.unbind(1)].flatten(1).float()


class DecoderBlock(nn.Module):
    """Attention and feed-forward layer, each added to its input."""

    def __init__(self, width: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, width // _HEAD_WIDTH)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, int(width * _EXPANSION))

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], lengths: list[int]) -> Tensor:
        """Tokens [N, W] of all studies, packed by `lengths`."""
        x = x + self.attention(self.attention_norm(x), rotary, lengths)
        return x + self.feed_forward(self.feed_forward_norm(x))


class TokenDecoder(nn.Module):
    """Tokens that were seen → tokens of the positions to predict.

    Args:
        encoder_width: Channels of the encoder's tokens.
        patch_size: Side of a patch, voxels.
        width: W, a multiple of 64.
        depth: Number of blocks.
    """

    def __init__(self, encoder_width: int, patch_size: int, width: int, depth: int):
        super().__init__()
        if width % _HEAD_WIDTH:
            raise UsageError(f"model.decoder_width ({width}) must be a multiple of {_HEAD_WIDTH}")
        self.patch_size = patch_size
        self.enter = nn.Linear(encoder_width, width)
        self.masked = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.ModuleList(DecoderBlock(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, features: Features, mask: Mask, spacing: Tensor) -> Tensor:
        """Decoded tokens of the predicted positions.

        Args:
            features: Of the positions `mask.keep`.
            mask: What was seen and what is predicted.
            spacing: [B, 3] mm.

        Returns:
            [M, W], in the order of `mask.predict.nonzero()`.
        """
        taking_part = mask.keep | mask.predict
        where = taking_part.nonzero()
        seen = mask.keep[taking_part]
        x = self.masked.float().repeat(len(where), 1)
        x[seen] = self.enter(features.tokens).float()
        patch_mm = (spacing * self.patch_size)[where[:, 0]]
        grid = (taking_part.shape[1], taking_part.shape[2], taking_part.shape[3])
        rotary = rotary_angles(centres(where[:, 1:], grid, patch_mm), _HEAD_WIDTH)
        lengths = torch.bincount(where[:, 0], minlength=len(spacing)).tolist()
        for block in self.blocks:
            x = block(x, rotary, lengths)
        return self.norm(x[mask.predict[taking_part]])


class Decoder(nn.Module):
    """Tokens that were seen → patches that were not; arguments as of `TokenDecoder`."""

    def __init__(self, encoder_width: int, patch_size: int, width: int, depth: int):
        super().__init__()
        self.tokens = TokenDecoder(encoder_width, patch_size, width, depth)
        voxels = patch_size**3
        self.weight = nn.Parameter(torch.randn(len(SEQUENCES), voxels, width) * width**-0.5 * 0.1)
        self.bias = nn.Parameter(torch.zeros(len(SEQUENCES), voxels))

    def forward(self, features: Features, mask: Mask, pairs: PatchPairs, spacing: Tensor) -> Tensor:
        """The predicted patch of each pair.

        Args:
            features: Of the positions `mask.keep`.
            mask: What was seen and what is predicted.
            pairs: From `pair_patches`.
            spacing: [B, 3] mm.

        Returns:
            [P, p³].
        """
        tokens = self.tokens(features, mask, spacing)
        rows = tokens[pairs.token].split([size for _, size in pairs.sequences])
        parts = [
            F.linear(part, self.weight[sequence], self.bias[sequence])
            for part, (sequence, _) in zip(rows, pairs.sequences, strict=True)
        ]
        return torch.cat(parts) if parts else tokens.new_zeros(0, self.bias.shape[1])
