"""The work of a pretraining step, counted without computing it: FLOPs, memory, bytes to send."""

from dataclasses import dataclass, replace

import torch

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.models.flops import count_flops, count_kept_bytes
from gliomoe.models.recompute import set_recompute
from gliomoe.models.selection import FOUR
from gliomoe.models.tissue import tissue_positions
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.samples.masking import apply_scores
from gliomoe.pretrain.samples.views import Views
from gliomoe.pretrain.sections import MaskConfig


@dataclass(frozen=True)
class Work:
    """What training on one study takes; both views of it, four sequences, no air."""

    forward_flops: int
    """FLOPs of the forward pass; a multiply-add is 2."""
    kept_bytes: int
    """Bytes that the backward pass needs of it."""
    parameters: int
    """Weights of encoder and objective."""
    trained: int
    """Those of them that are trained."""


def count_work(config: PretrainConfig, precision: str) -> Work:
    """Count the work of a configuration.

    Args:
        config: Of the run.
        precision: `fp32`, `autocast` or `bf16`.

    Raises:
        UsageError: If it cannot be built.
        ModelError: If the objective cannot be traced without computing.
    """
    from gliomoe.pretrain.build import build

    with torch.device("meta"):
        objective = build(config)[1]
    views = full_pairs(1, config.views.size, objective.encoder.patch_size, config.mask)
    forward = count_flops(objective, views)
    set_recompute(objective, config.engine.recompute)
    sizes = [(weight.numel(), weight.requires_grad) for weight in objective.parameters()]
    return Work(
        forward_flops=forward,
        kept_bytes=count_kept_bytes(objective, views, autocast=precision != "fp32"),
        parameters=sum(size for size, _ in sizes),
        trained=sum(size for size, trained in sizes if trained),
    )


def full_pairs(studies: int, size: int, patch_size: int, mask: MaskConfig) -> Views:
    """Two views each of some studies of four sequences, tissue in every voxel, nothing hidden."""
    rows = 2 * studies
    batch = StudyBatch(
        voxels=torch.ones(rows * len(FOUR), 1, size, size, size),
        sequence=torch.tensor([SEQUENCES.index(name) for name in FOUR]).repeat(rows),
        study=torch.arange(rows).repeat_interleave(len(FOUR)),
        spacing=torch.ones(rows, 3),
        keys=tuple(f"made-{number}" for number in range(rows)),
    )
    tissue = tissue_positions(batch, patch_size)
    scores = torch.rand(tissue.shape, generator=torch.Generator().manual_seed(0))
    # Complete volumes of their own, as in training: a step holds both.
    complete = replace(batch, voxels=batch.voxels.clone())
    masked = apply_scores(tissue, scores, mask)
    return Views(batch, complete, masked, torch.arange(studies), turns=(0,) * rows)
