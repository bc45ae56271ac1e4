"""3-D convolutions of maps shallower than their kernel, exact in bf16 on a CPU.

Notable: oneDNN's bf16 gradient by the weights leaves parts of its result as the memory was where
the map has fewer slices than the kernel: finite garbage or NaN, from run to run. Seen for 3 × 3 × 3
on 2 × H × W and 16 channels or more, on an AMD CPU with AVX512-BF16, torch 2.15. The forward pass,
the gradient by the input and float32 are right. Such maps are the coarsest of a U-Net on a small
crop; they cost next to nothing, and are computed in float32.
"""

import torch
from torch import Tensor, nn


class _Conv3d(nn.Conv3d):
    """`nn.Conv3d` that leaves bf16 on a CPU where a map has fewer slices than its kernel."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        device = input.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else input.dtype
        if device != "cpu" or low != torch.bfloat16 or input.shape[2] >= weight.shape[2]:
            return super()._conv_forward(input, weight, bias)
        with torch.autocast(device, enabled=False):
            whole = None if bias is None else bias.float()
            return super()._conv_forward(input.float(), weight.float(), whole).to(low)


def mend_shallow(model: nn.Module) -> None:
    """Give every plain 3-D convolution of a model the exact form, in place."""
    for module in model.modules():
        if type(module) is nn.Conv3d:
            module.__class__ = _Conv3d
