"""What `pretraining_step.py` runs: our step, the same trunk undropped, and three dense networks.

Each arm is a module whose forward pass returns a scalar loss on its own input, made beforehand.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.data_shards.batch import StudyBatch, collate
from gliomoe.data_shards.building.build import BuildConfig, build_shards
from gliomoe.data_shards.phantom.cohort import write_cohort
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.preprocess.config import PreprocessConfig
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.reading.reader import IndexedReader, OrderConfig
from gliomoe.launch.bench.objective import full_views, masked_reconstruction
from gliomoe.models import create_model
from gliomoe.models.model import Model
from gliomoe.models.tissue import tissue_positions
from gliomoe.pretrain.objectives.mae import MaskedAutoencoder
from gliomoe.pretrain.samples.masking import apply_scores
from gliomoe.pretrain.samples.views import StudyViews, Views, collate_pairs, make_views
from gliomoe.pretrain.sections import MaskConfig, ViewConfig

STUDIES = 1
"""Of two the dense networks keep more than 24 GB can hold."""
PATCH = 8
MASK = MaskConfig()
"""75 % masked, a third of that predicted: what pretraining does by default."""


@dataclass(frozen=True)
class Scale:
    """Sizes of all arms."""

    size: int
    model: str
    swin: dict[str, Any]
    vit: dict[str, Any]
    unet: dict[str, Any]
    patch_16: dict[str, Any]
    """What gives our model ViTAutoEnc's patches and about the same number of parameters."""
    spacing: float
    """Of the phantom that views are cut from, mm."""
    head_spacing: float
    """Of the whole head in inference, mm."""


# Parameters alike within 10 %, which `pretraining_step.py` checks.
FULL = Scale(
    size=96,
    model="gliomoe_base",
    # More blocks at the coarsest stage, where they cost least; width 60 alone has 97 M.
    swin={"feature_size": 60, "depths": (2, 2, 2, 6)},
    # ViT-B with two more blocks; its patches of 16³ are MONAI's default, and 8³ it refuses.
    vit={"hidden_size": 768, "mlp_dim": 3072, "num_layers": 14, "num_heads": 12},
    # ResEnc-L with two more blocks at the coarsest stage.
    unet={
        "features_per_stage": (32, 64, 128, 256, 320, 320),
        "n_blocks_per_stage": (1, 3, 4, 6, 6, 8),
    },
    patch_16={"patch_size": 16, "detail_channels": (24, 48, 96, 192), "expert_hidden": 416},
    spacing=1.0,
    head_spacing=2.0,
)
QUICK = Scale(
    size=64,
    model="gliomoe_tiny",
    swin={"feature_size": 12},
    vit={"hidden_size": 192, "mlp_dim": 768, "num_layers": 8, "num_heads": 4},
    unet={
        "features_per_stage": (8, 16, 32, 64, 80, 80),
        "n_blocks_per_stage": (1, 3, 4, 6, 6, 6),
    },
    patch_16={"patch_size": 16, "detail_channels": (8, 16, 32, 64)},
    spacing=3.0,
    head_spacing=4.0,
)


class Undropped(MaskedAutoencoder):
    """The same step with every position encoded; masked ones show 0.

    Tokens of masked positions take part in the whole trunk and end there, so that the decoder has
    the same work in both steps.
    """

    def forward(self, views: Views) -> dict[str, Tensor]:
        """`loss`."""
        keep, everything = views.mask.keep, views.mask.keep | views.mask.masked
        blank = enlarge(keep, self.encoder.patch_size)[views.visible.study]
        shown = replace(views.visible, voxels=views.visible.voxels * blank.unsqueeze(1))
        features = self.encoder(shown, everything)
        kept = keep[everything]
        seen = replace(
            features,
            tokens=features.tokens[kept],
            study=features.study[kept],
            position=features.position[kept],
        )
        return {"loss": self.reconstruction(seen, views)}


class DenseMasking(nn.Module):
    """Masked voxels are 0, the network gives all of them, the error of the masked ones counts."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, masked: Tensor) -> Tensor:
        """Loss of [B, 4, D, H, W] images with a mask [B, 1, D, H, W] of 0 and 1."""
        made = self.network(images * (1 - masked))
        made = made[0] if isinstance(made, tuple) else made  # ViTAutoEnc adds its hidden states
        error = (made - images).square() * masked
        return error.sum() / (masked.sum() * images.shape[1])


@dataclass(frozen=True)
class Arm:
    """One thing to measure."""

    parameters: int
    """That take part."""
    run: Callable[[], Tensor | None]
    """A forward pass; its scalar is differentiated, None is inference."""
    module: nn.Module
    notes: dict[str, Any]


def enlarge(positions: Tensor, patch_size: int) -> Tensor:
    """Patch positions [B, Gd, Gh, Gw] as voxels [B, D, H, W]."""
    for axis in (1, 2, 3):
        positions = positions.repeat_interleave(patch_size, axis)
    return positions


def phantom_shards(spacing: float, folder: Path) -> ShardSet:
    """A phantom, preprocessed to a spacing in mm."""
    cohort, shards = folder / f"cohort-{spacing}", folder / f"shards-{spacing}"
    write_cohort(cohort, CohortConfig(subjects=1, spacing=spacing))
    settings = PreprocessConfig(spacing=spacing)
    build_shards([cohort], shards, BuildConfig(keep_ids=True, preprocess=settings))
    return ShardSet.open(shards)


def phantom_views(scale: Scale, folder: Path) -> Views:
    """Two views of a phantom, cut and augmented as pretraining does."""
    reader = IndexedReader(phantom_shards(scale.spacing, folder), OrderConfig(), 0)
    views = ViewConfig(size=scale.size, hide=False)
    pairs = collate_pairs([StudyViews(reader, views, AugmentConfig(), PATCH, 0)[0]])
    return make_views(pairs, scale.size, PATCH, MASK)


def with_air(views: Views) -> Views:
    """The same views, masked as if air were tissue."""
    everywhere = torch.ones_like(views.mask.keep)
    scores = torch.rand(everywhere.shape, generator=torch.Generator().manual_seed(0))
    return replace(views, mask=apply_scores(everywhere, scores, MASK))


def token_arm(module: MaskedAutoencoder, views: Views, undropped: bool = False) -> Arm:
    """A step of an objective."""
    mask = views.mask
    tokens = int((mask.keep | mask.masked if undropped else mask.keep).sum())
    notes = {"patch_size": module.encoder.patch_size, "tokens": tokens}
    return Arm(trained(module), lambda: module(views)["loss"], module, notes)


def dense_arm(network: nn.Module, views: Views, notes: dict[str, Any]) -> Arm:
    """A step of dense masked reconstruction."""
    module = DenseMasking(network)
    images = views.complete.voxels.view(STUDIES, -1, *views.complete.voxels.shape[2:])
    masked = enlarge(views.mask.masked, PATCH).unsqueeze(1).float()
    return Arm(trained(module), lambda: module(images, masked), module, notes)


def inference_arm(scale: Scale, batch: StudyBatch) -> Arm:
    """A forward pass with all heads, nothing differentiated."""
    torch.manual_seed(0)
    model: Model = create_model(scale.model, ["seg", "idh"]).eval()
    tokens = int(tissue_positions(batch, model.encoder.patch_size).sum())

    def run() -> None:
        with torch.no_grad():
            model(batch)

    return Arm(trained(model), run, model, {"model": scale.model, "tokens": tokens})


def trained(module: nn.Module) -> int:
    """Parameters that a step trains."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def networks(scale: Scale) -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """The three dense networks and their settings."""
    from dynamic_network_architectures.architectures.unet import ResidualEncoderUNet
    from monai.networks.nets import SwinUNETR, ViTAutoEnc

    torch.manual_seed(0)
    side, stages = (scale.size,) * 3, len(scale.unet["features_per_stage"])
    vit = {"patch_size": (16, 16, 16), **scale.vit}
    unet = {
        "strides": (1, *(2,) * (stages - 1)),
        "n_conv_per_stage_decoder": (1,) * (stages - 1),
        **scale.unet,
    }
    return {
        "monai_swin_unetr": (SwinUNETR(4, 4, **scale.swin), scale.swin),
        "monai_vit_autoenc": (ViTAutoEnc(4, side, out_channels=4, **vit), vit),
        "nnunet_residual_encoder": (
            ResidualEncoderUNet(
                input_channels=4,
                n_stages=stages,
                conv_op=nn.Conv3d,
                kernel_sizes=3,
                num_classes=4,
                conv_bias=True,
                norm_op=nn.InstanceNorm3d,
                norm_op_kwargs={"eps": 1e-5, "affine": True},
                nonlin=nn.LeakyReLU,
                nonlin_kwargs={"inplace": True},
                **unet,
            ),
            unet,
        ),
    }


def step_arms(scale: Scale) -> dict[str, Arm]:
    """The pretraining step and its rivals, on studies without air."""
    views = full_views(STUDIES, scale.size, PATCH)
    undropped = masked_reconstruction(scale.model, Undropped)
    coarse = masked_reconstruction(scale.model, **scale.patch_16)
    arms = {
        "ours": token_arm(masked_reconstruction(scale.model), views),
        "ours_undropped": token_arm(undropped, views, undropped=True),
        "ours_patch_16": token_arm(coarse, full_views(STUDIES, scale.size, 16)),
    }
    for name, (network, notes) in networks(scale).items():
        arms[name] = dense_arm(network, views, notes)
    return arms


def air_arms(scale: Scale, folder: Path) -> dict[str, Arm]:
    """Training on views and inference on a whole head of a phantom, without and with air."""
    views = phantom_views(scale, folder)
    head = collate([phantom_shards(scale.head_spacing, folder).study(0).read()])
    # A value that no position takes for background.
    filled = replace(head, voxels=head.voxels.where(head.voxels != 0, 1e-6))
    return {
        "training_tissue": token_arm(masked_reconstruction(scale.model), views),
        "training_all": token_arm(masked_reconstruction(scale.model), with_air(views)),
        "inference_tissue": inference_arm(scale, head),
        "inference_all": inference_arm(scale, filled),
    }
