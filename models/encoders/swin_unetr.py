"""Encoder of SwinUNETR: windowed attention in four stages, each at half the resolution before.

The size is that of BrainSegFounder-Tiny, from which MTS-UNET starts (MTS-UNET, Method Summary).
Stages and embedding are MONAI's. Its `SwinTransformer` is not used whole: it reads the value of a
tensor while it is built, which the meta device does not have.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from gliomoe.models.blocks.intensity import centred
from gliomoe.models.encoders.dense import DenseEncoder, Padded
from gliomoe.models.errors import ModelError
from gliomoe.models.features import Routing
from gliomoe.models.recompute import Recomputable
from gliomoe.models.selection import FOUR, select_sequences

STRIDE = 32
"""Of the coarsest level: the embedding and each of the four stages halve the resolution."""


@dataclass(frozen=True)
class MTSUNetConfig:
    """Settings of MTS-UNET, its heads included; defaults are the paper's."""

    feature_size: int = 48
    """Channels at full and half resolution; they double with every stage."""
    depths: tuple[int, int, int, int] = (2, 2, 2, 2)
    """Transformer blocks per stage."""
    heads: tuple[int, int, int, int] = (3, 6, 12, 24)
    """Attention heads per stage."""
    window: int = 7
    """Edge of an attention window, in positions of the stage."""
    patch_size: int = 32
    """Edge of a token of pretraining in voxels, 8, 16 or 32; stages beyond it are not pretrained
    (`dense_only`)."""
    tafe_stages: int = 2
    """Encoder stages that tumour-aware feature encoding pools, 1 to 4, counted from the last."""
    tafe_width: int = 256
    """Channels of the pooled and projected vector."""
    cmd: bool = True
    """Cross-modality differential for the task `idh`, with the second network that it feeds."""
    cmd_channels: int = 8
    """Channels of the convolution of T2 and FLAIR."""
    gamma: float = 2.0
    """Amplification γ > 1 of the difference; the paper gives no value."""
    min_gate: float = 0.1
    """Least weight of a voxel in the pooling that the tumour gates."""
    dropout: float = 0.2
    """Of the classification heads; the paper gives no value."""

    def __post_init__(self) -> None:
        """Settings that exclude each other."""
        if self.patch_size not in (8, 16, 32):
            raise ModelError(f"patch_size {self.patch_size}: must be 8, 16 or 32")
        if len(self.depths) != 4 or len(self.heads) != 4:
            raise ModelError("depths and heads: must name four stages each")
        for stage, heads in enumerate(self.heads):
            if self.feature_size * 2**stage % heads:
                raise ModelError(
                    f"heads {heads} of stage {stage + 1}: must divide its "
                    f"{self.feature_size * 2**stage} channels"
                )
        if not 1 <= self.tafe_stages <= 4:
            raise ModelError(f"tafe_stages {self.tafe_stages}: must be 1 to 4")
        if self.gamma <= 1:
            raise ModelError(f"gamma {self.gamma}: must be above 1, it amplifies a difference")
        if not 0 <= self.min_gate <= 1:
            raise ModelError(f"min_gate {self.min_gate}: must be 0 to 1")


class Stage(Recomputable, nn.Sequential):
    """One stage of MONAI's; a sequence of one, so that parameters bear the names of MONAI's."""


class SwinStages(nn.Module):
    """Patch embedding and four stages; parameters have the names below MONAI's `swinViT`."""

    def __init__(self, channels: int, config: MTSUNetConfig):
        # MONAI is slow to import, and importing the models must not do it.
        from monai.networks.blocks import PatchEmbed
        from monai.networks.nets.swin_unetr import BasicLayer, PatchMerging

        super().__init__()
        first = config.feature_size
        without: Any = None  # MONAI's annotations allow neither this nor a class to merge with
        self.patch_embed = PatchEmbed(2, channels, first, norm_layer=without, spatial_dims=3)
        merging: Any = PatchMerging
        for stage in range(4):
            layer = BasicLayer(
                dim=first * 2**stage,
                depth=config.depths[stage],
                num_heads=config.heads[stage],
                window_size=(config.window,) * 3,
                drop_path=[0.0] * config.depths[stage],
                qkv_bias=True,
                downsample=merging,
            )
            self.add_module(f"layers{stage + 1}", Stage(layer))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps [B, C_i, D/2^i, …] for i = 1 to 5, normalised over channels.

        Args:
            x: [B, S, D, H, W], sides multiples of 32.
        """
        x = self.patch_embed(x)
        maps = [normalised(x)]
        for stage in range(1, 5):
            x = self.get_submodule(f"layers{stage}")(x.contiguous())
            maps.append(normalised(x))
        return maps


def normalised(x: Tensor) -> Tensor:
    """[B, C, D, H, W] with mean 0 and variance 1 over the channels of every position."""
    return F.layer_norm(x.movedim(1, -1), x.shape[1:2]).movedim(-1, 1)


def swin_channels(inputs: int, feature_size: int) -> tuple[int, ...]:
    """Channels of the pyramid: the input itself, then the embedding and the four stages."""
    return (inputs, *(feature_size * 2**stage for stage in range(5)))


class SwinEncoder(DenseEncoder):
    """T1, T1ce, T2 and FLAIR as four channels; level 0 of the pyramid is these channels."""

    trunk_names = (("swin",),)

    def __init__(self, config: MTSUNetConfig, sequences: Sequence[str] = FOUR):
        super().__init__()
        self.config = config
        self.sequences = tuple(sequences)
        self.stride = STRIDE
        self.patch_size = config.patch_size
        self.channels = swin_channels(len(sequences), config.feature_size)
        level = config.patch_size.bit_length() - 1
        self.width = self.channels[level]
        self.swin = SwinStages(len(sequences), config)
        # Level i is the output of stage i - 1: stages after it get no gradient from the tokens.
        self.dense_only = tuple(f"swin.layers{stage}" for stage in range(level, 5))

    def maps(self, batch: Padded, kept: Tensor) -> tuple[list[Tensor], list[Routing]]:
        """The channels of the input, then the maps of the stages; nothing is routed."""
        x = centred(select_sequences(batch, self.sequences, "mts_unet"))
        return [x, *self.swin(x)], []
