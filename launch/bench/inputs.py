"""Input that benchmarks make themselves: studies with tissue in every voxel."""

import torch

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.models.model import Model
from gliomoe.models.selection import FOUR

ASSAYS = 3
"""Mutation, copy number and expression of a gene."""


def full_studies(
    size: int, studies: int = 1, genes: int = 0, spacing: float = 1.0, seed: int = 0
) -> StudyBatch:
    """Studies of four sequences whose every voxel is tissue.

    Args:
        size: D = H = W.
        studies: B.
        genes: G, rows of a gene table; 0 for none.
        spacing: mm.
        seed: Of the intensities.
    """
    generator = torch.Generator().manual_seed(seed)
    volumes = studies * len(FOUR)
    table = torch.rand(studies, genes, ASSAYS, generator=generator) if genes else None
    return StudyBatch(
        voxels=0.1 + 0.9 * torch.rand(volumes, 1, size, size, size, generator=generator),
        sequence=torch.tensor([SEQUENCES.index(name) for name in FOUR]).repeat(studies),
        study=torch.arange(studies).repeat_interleave(len(FOUR)),
        spacing=torch.full((studies, 3), spacing),
        keys=tuple(f"made-{number}" for number in range(studies)),
        genes=table,
    )


def study_for(model: Model, size: int) -> StudyBatch:
    """One such study with everything that a model asks for."""
    return full_studies(size, genes=len(model.genes))
