"""Small blocks of the published systems: normalisation, residual blocks, squeeze-excitation."""

import pytest
import torch

from gliomoe.models.blocks.decoder import Decoder, UpBlock
from gliomoe.models.blocks.normalisation import normalisation
from gliomoe.models.blocks.residual import ResidualBlock
from gliomoe.models.blocks.squeeze_excitation import squeeze_excitation
from gliomoe.models.blocks.swin import SwinStage
from gliomoe.models.errors import ModelError


def test_batch_norm_equals_its_definition():
    torch.manual_seed(0)
    norm, x = normalisation("batch", 3), torch.randn(2, 3, 2, 3, 4)
    flat = x.movedim(1, 0).flatten(1)
    mean, variance = flat.mean(1), flat.var(1, unbiased=False)
    expected = (flat - mean[:, None]) / (variance[:, None] + norm.eps).sqrt()
    torch.testing.assert_close(norm(x).movedim(1, 0).flatten(1), expected)
    torch.testing.assert_close(norm.running_mean, 0.1 * mean)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * flat.var(1))


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 6), (6, 6), (7, 7), (22, 2)])
def test_groups_divide_the_channels(channels, groups):
    assert normalisation("group", channels).num_groups == groups


def test_unknown_norm():
    with pytest.raises(ModelError, match="unknown norm 'layer'; known: batch, group"):
        normalisation("layer", 4)


def test_residual_block_is_an_identity_where_its_convolutions_are_silent():
    block = ResidualBlock(4, "batch")
    torch.nn.init.zeros_(block.norm.weight)
    x = torch.rand(1, 4, 3, 3, 3)
    torch.testing.assert_close(block(x), x)


def test_squeeze_excitation_equals_its_definition():
    torch.manual_seed(0)
    layer, x = squeeze_excitation(6, 2), torch.randn(2, 6, 3, 2, 4)
    first, second = (part for part in layer.modules() if isinstance(part, torch.nn.Linear))
    assert first.out_features == 3
    for study in range(2):
        mean = torch.stack([x[study, c].mean() for c in range(6)])
        hidden = (first.weight @ mean + first.bias).relu()
        scale = (second.weight @ hidden + second.bias).sigmoid()
        for c in range(6):
            torch.testing.assert_close(layer(x)[study, c], x[study, c] * scale[c])
    with pytest.raises(ModelError, match="se_reduction 8"):
        squeeze_excitation(6, 8)


@pytest.mark.parametrize("gated", [False, True])
def test_up_block_adds_its_refined_input(gated):
    torch.manual_seed(0)
    block = UpBlock(6, 4, "batch", gated)
    torch.nn.init.zeros_(block.join[-1].weight)
    block.norm = torch.nn.Identity()
    x, skip = torch.randn(1, 6, 2, 3, 1), torch.randn(1, 4, 4, 5, 2)
    larger = torch.nn.functional.interpolate(x, scale_factor=2, mode="trilinear")[:, :, :, :5]
    output, gate = block(x, skip)
    torch.testing.assert_close(output, block.refine(larger))
    assert (gate is not None) == gated


def test_decoder_goes_from_the_coarsest_level_to_the_finest():
    torch.manual_seed(0)
    decoder = Decoder((2, 4, 6), "batch", gated=True)
    pyramid = [torch.randn(1, 2, 7, 4, 5), torch.randn(1, 4, 4, 2, 3), torch.randn(1, 6, 2, 1, 2)]
    maps, gates = decoder(pyramid)
    assert [x.shape for x in maps] == [level.shape for level in pyramid[:-1]]
    assert [x.shape[2:] for x in gates] == [level.shape[2:] for level in pyramid[:-1]]
    decoder.eval()
    maps, gates = decoder(pyramid)
    coarse, gate = decoder.blocks[1](pyramid[2], pyramid[1])
    fine, _ = decoder.blocks[0](coarse, pyramid[0])
    assert torch.equal(maps[1], coarse)
    assert torch.equal(gates[1], gate)
    assert torch.equal(maps[0], fine)


def test_swin_stage_merges_odd_sides():
    stage = SwinStage(8, depth=2, heads=2, window=2, merge=True)
    assert stage(torch.randn(1, 4, 8, 6, 5)).shape == (1, 8, 4, 3, 3)


def test_shifted_windows_carry_information_across_windows():
    torch.manual_seed(0)
    stage = SwinStage(4, depth=2, heads=1, window=2, merge=False)
    x = torch.randn(1, 4, 8, 8, 8)
    changed = x.clone()
    changed[:, 0, 3, 3, 3] += 1
    moved = (stage(x) - stage(changed)).abs().sum(1)[0] > 1e-7
    assert moved[4, 4, 4]
    assert not moved[7, 7, 7]
