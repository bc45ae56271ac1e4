"""One module a pretraining objective, and their registry.

An objective takes an encoder and the configuration; its `forward(views)` returns scalars by name:
`loss`, which is minimised, and its parts, which are shown (`expert_use` is [layers, E]). With
`picture(views)` it also shows what it reconstructs, and in `after_step(step)` it does what follows
an applied step.

Two are there to compare with: `jepa`, the field's main rival of predicting voxels, which predicts
features and needs no decoder of images; `swin_unetr`, the recipe most used as a baseline in 3-D
medical imaging.
"""

from collections.abc import Callable

from gliomoe.data_shards.errors import UsageError
from gliomoe.models.encoders.encoder import Encoder
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.objectives.contrast import ContrastOnly
from gliomoe.pretrain.objectives.jepa import LatentPrediction
from gliomoe.pretrain.objectives.mae import MaskedAutoencoder
from gliomoe.pretrain.objectives.mae_contrast import MaskedContrast
from gliomoe.pretrain.objectives.objective import Objective
from gliomoe.pretrain.objectives.swin_unetr import InpaintRotateContrast

OBJECTIVES: dict[str, Callable[[Encoder, PretrainConfig], Objective]] = {
    "mae": MaskedAutoencoder,
    "contrast": ContrastOnly,
    "mae+contrast": MaskedContrast,
    "jepa": LatentPrediction,
    "swin_unetr": InpaintRotateContrast,
}
"""Name in `loss.objective` → module."""


def create_objective(encoder: Encoder, config: PretrainConfig) -> Objective:
    """The objective that the configuration names.

    Raises:
        UsageError: If there is none of that name.
    """
    name = config.loss.objective
    if name not in OBJECTIVES:
        raise UsageError(f"unknown loss.objective {name!r}; known: {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name](encoder, config)
