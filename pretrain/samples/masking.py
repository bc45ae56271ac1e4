"""Which positions of a view are seen, which are predicted.

A position is a patch of the grid. Only positions with tissue take part; the same ones are masked in
every sequence of a view. The draw is a field of random scores, made without looking at the image;
applying it ranks the positions with tissue by their score.

Shapes: B studies, G positions of the grid along one side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gliomoe.pretrain.sections import MaskConfig


@dataclass(frozen=True)
class Mask:
    """The positions of each study that are seen, and those to predict."""

    keep: Tensor
    """[B, Gd, Gh, Gw] bool, seen by the encoder."""
    predict: Tensor
    """[B, Gd, Gh, Gw] bool, predicted, whether masked or seen."""
    masked: Tensor
    """[B, Gd, Gh, Gw] bool, all that are masked."""


def draw_scores(grid: Sequence[int], generator: torch.Generator) -> Tensor:
    """A random score for each position of one study, [Gd, Gh, Gw]; the lowest are seen."""
    return torch.rand(*grid, generator=generator)


def apply_scores(tissue: Tensor, scores: Tensor, config: MaskConfig) -> Mask:
    """Mask a part of the positions with tissue.

    Args:
        tissue: [B, Gd, Gh, Gw] bool.
        scores: [B, Gd, Gh, Gw] from `draw_scores`.
        config: Parts that are masked and predicted.

    Returns:
        The mask. Of the N positions of a study, `round(ratio · N)` are masked, but at least one
        is seen; of M masked ones `ceil(predicted · M)` are predicted, of K seen ones
        `ceil(seen · K)`.
    """
    flat = torch.where(tissue, scores, torch.inf).flatten(1)
    rank = flat.argsort(dim=1, stable=True).argsort(dim=1)
    positions = tissue.flatten(1).sum(1, keepdim=True)
    masked = (positions * config.ratio).round().long().clamp(max=(positions - 1).clamp(min=0))
    seen = positions - masked
    keep = rank < seen
    first = seen - _part(seen, config.seen)
    predict = (rank >= first) & (rank < seen + _part(masked, config.predicted))
    return Mask(keep.view_as(tissue), predict.view_as(tissue), tissue & ~keep.view_as(tissue))


def _part(number: Tensor, part: float) -> Tensor:
    """A part of a number of positions, rounded up."""
    return (number * part - 1e-6).ceil().long()
