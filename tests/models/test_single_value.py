"""Normalisation of a single value trains; of more it is torch's own."""

import pytest
import torch
from torch import nn

from gliomoe.models.blocks.single_value import BatchNorm, InstanceNorm, allow_single_values


@pytest.mark.parametrize("shape", [(4, 3), (1, 3, 2, 1, 1), (2, 3, 1, 1, 1)])
def test_batch_norm_of_several_values_is_that_of_torch(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = BatchNorm(3), nn.BatchNorm1d(3) if x.ndim == 2 else nn.BatchNorm3d(3)
    for _ in range(2):
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1, 1)])
def test_batch_norm_of_one_value_uses_the_running_statistics(shape):
    norm = BatchNorm(3)
    norm.running_mean.fill_(2.0)
    norm.running_var.fill_(4.0)
    x = torch.full(shape, 6.0, requires_grad=True)
    y = norm(x)
    torch.testing.assert_close(y, torch.full(shape, 2.0))
    y.sum().backward()
    assert x.grad.any() and norm.weight.grad.any()
    assert norm.running_mean.eq(2).all() and norm.num_batches_tracked == 0


def test_instance_norm_of_one_voxel_passes():
    x = torch.randn(2, 3, 1, 1, 1)
    assert torch.equal(InstanceNorm(3)(x), x)
    x = torch.randn(2, 3, 2, 1, 2)
    assert torch.equal(InstanceNorm(3)(x), nn.InstanceNorm3d(3)(x))


def test_replacement_keeps_names_and_settings():
    block = nn.Sequential(
        nn.Sequential(nn.InstanceNorm3d(2)), nn.BatchNorm3d(2, momentum=0.3), nn.LayerNorm(2)
    )
    names = set(block.state_dict())
    allow_single_values(block)
    assert set(block.state_dict()) == names
    assert type(block[0][0]) is InstanceNorm and type(block[1]) is BatchNorm
    assert block[1].momentum == 0.3
    assert block(torch.ones(1, 2, 1, 1, 2)).shape == (1, 2, 1, 1, 2)
