"""Normalisation of few values trains; of more it is torch's own."""

import pytest
import torch
from torch import nn

from gliomoe.models.blocks.normalisation import FEW, BatchNorm, InstanceNorm, allow_few_values


@pytest.mark.parametrize("shape", [(FEW, 3), (1, 3, 2, 2, 2), (2, 3, 4, 1, 1)])
def test_batch_norm_of_enough_values_is_that_of_torch(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = BatchNorm(3), nn.BatchNorm1d(3) if x.ndim == 2 else nn.BatchNorm3d(3)
    for _ in range(2):
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("shape", [(1, 2), (3, 2), (1, 2, 1, 1, 1), (2, 2, 1, 3, 1)])
def test_batch_norm_of_few_values_uses_the_moving_average(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    norm = BatchNorm(2, momentum=0.25)
    y = norm(x)
    for channel in range(2):
        values = x[:, channel].flatten().tolist()
        mean = 0.25 * sum(values) / len(values)
        variance = 0.75 + 0.25 * sum((v - mean) ** 2 for v in values) / len(values)
        expected = (x[:, channel] - mean) / (variance + norm.eps) ** 0.5
        torch.testing.assert_close(y[:, channel], expected)
    torch.testing.assert_close(norm.eval()(x), y)


def test_two_studies_keep_their_gradient():
    x = torch.randn(2, 4, requires_grad=True, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))
    norm = BatchNorm(4)
    first = (norm(x) * weight).sum()
    norm(x)  # another batch must not disturb the backward pass of the first
    first.backward()
    assert x.grad.abs().min() > 0.1 * weight.abs().min()


def test_instance_norm_of_one_voxel_passes():
    x = torch.randn(2, 3, 1, 1, 1)
    assert torch.equal(InstanceNorm(3)(x), x)
    x = torch.randn(2, 3, 2, 1, 2)
    norm = InstanceNorm(3, affine=True)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = nn.functional.group_norm(x, 3, norm.weight, norm.bias)
    torch.testing.assert_close(norm(x), expected)


def test_replacement_keeps_names_and_settings():
    block = nn.Sequential(
        nn.Sequential(nn.InstanceNorm3d(2)), nn.BatchNorm3d(2, momentum=0.3), nn.LayerNorm(2)
    )
    names = set(block.state_dict())
    allow_few_values(block)
    assert set(block.state_dict()) == names
    assert type(block[0][0]) is InstanceNorm and type(block[1]) is BatchNorm
    assert block[1].momentum == 0.3
    assert block(torch.ones(1, 2, 1, 1, 2)).shape == (1, 2, 1, 1, 2)
