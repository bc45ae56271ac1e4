"""Pretraining steps on made-up studies: masked reconstruction as `gliomoe pretrain` builds it."""

from pathlib import Path
from typing import Any

import torch

from gliomoe.launch.bench.inputs import full_studies
from gliomoe.models import create_model
from gliomoe.models.tissue import tissue_positions
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.objectives.mae import MaskedAutoencoder
from gliomoe.pretrain.samples.masking import apply_scores
from gliomoe.pretrain.samples.views import Views
from gliomoe.pretrain.sections import DataConfig, LossConfig, MaskConfig, ModelConfig, RunConfig


def masked_reconstruction(
    name: str, kind: type[MaskedAutoencoder] = MaskedAutoencoder, **settings: Any
) -> MaskedAutoencoder:
    """Encoder and decoder of objective `mae`; what pretraining leaves idle is frozen.

    Args:
        name: Of the model.
        kind: The objective or a variant of it.
        **settings: Of the model, where they differ from its own.
    """
    torch.manual_seed(0)
    encoder = create_model(name, **settings).encoder
    for child in encoder.dense_only:
        encoder.get_submodule(child).requires_grad_(False)
    config = PretrainConfig(
        data=DataConfig(train=("made",)),
        run=RunConfig(out=Path("made")),
        model=ModelConfig(name=name),
        loss=LossConfig(objective="mae"),
    )
    return kind(encoder, config)


def full_views(studies: int, size: int, patch_size: int) -> Views:
    """One view each of some studies of four sequences without air, masked as by default."""
    batch = full_studies(size, studies)
    tissue = tissue_positions(batch, patch_size)
    scores = torch.rand(tissue.shape, generator=torch.Generator().manual_seed(0))
    mask = apply_scores(tissue, scores, MaskConfig())
    return Views(batch, batch, mask, torch.arange(studies), turns=(0,) * studies)
