"""Decoder of SwinUNETR: residual blocks on the skips, transposed convolutions between them.

Blocks are MONAI's; they are put together here so that levels of odd sides fit and so that the
backward pass can compute them again. Parameters have the names of MONAI's `SwinUNETR`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gliomoe.models.blocks.normalisation import allow_few_values
from gliomoe.models.recompute import Recomputable

CLASSES = 4
"""Background, necrotic core, oedema, enhancing tumour (MTS-UNET, Method Summary)."""


class SkipBlock(Recomputable):
    """Residual block of 3³ convolutions on one level of the pyramid."""

    def __init__(self, channels_in: int, channels_out: int):
        from monai.networks.blocks import UnetResBlock

        super().__init__()
        self.layer = UnetResBlock(3, channels_in, channels_out, 3, 1, "instance")
        allow_few_values(self)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, D, H, W] → [B, C', D, H, W]."""
        return self.layer(x)


class UpBlock(Recomputable):
    """Twice the resolution, joined with the finer level."""

    def __init__(self, channels_in: int, channels_out: int):
        from monai.networks.blocks import UnetResBlock
        from monai.networks.blocks.dynunet_block import get_conv_layer

        super().__init__()
        self.transp_conv = get_conv_layer(
            3, channels_in, channels_out, kernel_size=2, stride=2, is_transposed=True
        )
        self.conv_block = UnetResBlock(3, 2 * channels_out, channels_out, 3, 1, "instance")
        allow_few_values(self)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        """[B, C, ceil(D / 2), …] and [B, C', D, H, W] → [B, C', D, H, W]."""
        d, h, w = finer.shape[-3:]
        return self.conv_block(torch.cat([self.transp_conv(x)[..., :d, :h, :w], finer], dim=1))


class SwinUNETRDecoder(nn.Module):
    """From the pyramid of the encoder to a map of `feature_size` channels at full resolution."""

    def __init__(self, inputs: int, feature_size: int):
        super().__init__()
        f = feature_size
        self.encoder1, self.encoder2 = SkipBlock(inputs, f), SkipBlock(f, f)
        self.encoder3, self.encoder4 = SkipBlock(2 * f, 2 * f), SkipBlock(4 * f, 4 * f)
        self.encoder10 = SkipBlock(16 * f, 16 * f)
        self.decoder5, self.decoder4 = UpBlock(16 * f, 8 * f), UpBlock(8 * f, 4 * f)
        self.decoder3, self.decoder2 = UpBlock(4 * f, 2 * f), UpBlock(2 * f, f)
        self.decoder1 = UpBlock(f, f)

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """[B, F, D, H, W] of [B, C_i, ceil(D / 2^i), …] for i = 0 to 5."""
        x = self.decoder5(self.encoder10(pyramid[5]), pyramid[4])
        x = self.decoder4(x, self.encoder4(pyramid[3]))
        x = self.decoder3(x, self.encoder3(pyramid[2]))
        x = self.decoder2(x, self.encoder2(pyramid[1]))
        return self.decoder1(x, self.encoder1(pyramid[0]))


class SwinUNETRHead(SwinUNETRDecoder):
    """Decoder and logits of exclusive classes."""

    def __init__(self, inputs: int, feature_size: int):
        from monai.networks.blocks import UnetOutBlock

        super().__init__(inputs, feature_size)
        self.out = UnetOutBlock(3, feature_size, CLASSES)
        # Tumour is rare: start near its frequency.
        with torch.no_grad():
            self.get_parameter("out.conv.conv.bias").zero_()[0] = 3.0

    def forward(self, pyramid: list[Tensor]) -> Tensor:
        """Logits [B, 4, D, H, W] of the canonical labels 0 to 3."""
        return self.out(super().forward(pyramid))


def from_swin_unetr(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a public SwinUNETR checkpoint under the names of `mts_unet`.

    For checkpoints of MONAI's `SwinUNETR` with four input channels, BrainSegFounder-Tiny among
    them. The input channels must be in the order T1, T1ce, T2, FLAIR; the logits `out` belong to
    other classes than ours and are left out.

    Args:
        state: As MONAI names it, with or without `module.` before every name.
    """
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return {
        f"encoder.swin.{name[8:]}" if name.startswith("swinViT.") else f"heads.seg.{name}": tensor
        for name, tensor in plain.items()
        if not name.startswith("out.")
    }
