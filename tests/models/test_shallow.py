"""Convolutions of maps with fewer slices than the kernel, in bf16 on a CPU."""

import pytest
import torch
from torch import nn

from gliomoe.models.registry import create_model
from gliomoe.models.shallow import mend_shallow


def soil_memory():
    """Leave NaN in the memory that the next tensors are likely to get."""
    soiled = [torch.full((size,), float("nan")) for size in (2_000, 20_000, 50_000) * 3]
    del soiled


def gradients(layer, x, low):
    """Output, and gradients by input and weight, with a loss that weighs all voxels."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        y = layer(x)
    soil_memory()
    y.float().square().sum().backward()
    return y, x.grad, layer.weight.grad.clone()


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_gradients_are_those_of_float32(depth):
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv3d(24, 24, 3, padding=1))
    mend_shallow(layer)
    x = torch.randn(2, 24, depth, 3, 4)
    y, *exact = gradients(layer[0], x, low=False)
    for _ in range(5):
        found, *low = gradients(layer[0], x, low=True)
        assert found.dtype == torch.bfloat16 and y.dtype == torch.float32
        for one, other in zip(exact, low, strict=True):
            assert (one - other).abs().max() < 0.03 * one.abs().max()


def test_bf16_weights_stay_so():
    layer = nn.Sequential(nn.Conv3d(16, 16, 3, padding=1, bias=False)).bfloat16()
    mend_shallow(layer)
    y = layer(torch.randn(1, 16, 2, 2, 2, dtype=torch.bfloat16))
    y.float().sum().backward()
    assert y.dtype == layer[0].weight.grad.dtype == torch.bfloat16


def test_every_model_has_them_and_keeps_its_names():
    model = create_model("attention_unet", ("seg",))
    assert not [n for n, module in model.named_modules() if type(module) is nn.Conv3d]
    assert any(isinstance(module, nn.Conv3d) for module in model.modules())
