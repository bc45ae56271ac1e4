"""Deformable attention and convolution against loops over their definitions."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from gliomoe.models.blocks.dlka import (
    MODES,
    DeformableConv3d,
    DeformableLargeKernelAttention,
    WarpedConv3d,
)
from gliomoe.models.blocks.msda import MultiScaleDeformableAttention
from gliomoe.models.blocks.sampling import sample_voxels
from gliomoe.models.errors import ModelError


def trilinear(volume, where):
    """Values [C] of a map [C, D, H, W] at one fractional position; outside it is 0."""
    total = volume.new_zeros(volume.shape[0])
    base = [math.floor(w) for w in where.tolist()]
    for corner in itertools.product((0, 1), repeat=3):
        voxel = [b + c for b, c in zip(base, corner, strict=True)]
        if any(not 0 <= v < side for v, side in zip(voxel, volume.shape[1:], strict=True)):
            continue
        share = 1.0
        for w, v in zip(where, voxel, strict=True):
            share = share * (1 - (w - v).abs())
        total = total + share * volume[:, voxel[0], voxel[1], voxel[2]]
    return total


def looped(layer, query, scales):
    """Equation 6 as it is written, head by head and point by point."""
    heads, points = layer.heads, layer.points
    result = []
    for study, row, column, slab in itertools.product(*map(range, query.shape[:4])):
        q, voxel = query[study, row, column, slab], (row, column, slab)
        offsets = layer.offsets(q).view(heads, len(scales), points, 3)
        weights = layer.attention(q).view(heads, -1).softmax(1).view(heads, len(scales), points)
        parts = []
        for head in range(heads):
            part = 0
            for s, scale in enumerate(scales):
                matrix = layer.values[s].weight[:, :, 0, 0, 0].chunk(heads)[head]
                sides = zip(voxel, scale.shape[2:], query.shape[1:4], strict=True)
                middle = torch.tensor([(v + 0.5) * there / here - 0.5 for v, there, here in sides])
                for n in range(points):
                    read = trilinear(scale[study], middle + offsets[head, s, n])
                    part = part + weights[head, s, n] * (matrix @ read)
            parts.append(part)
        result.append(layer.output(torch.cat(parts)))
    return torch.stack(result).view(query.shape)


@pytest.fixture
def attention():
    torch.manual_seed(0)
    layer = MultiScaleDeformableAttention(channels=5, scales=(3, 5), width=4, heads=2, points=3)
    for linear in (layer.offsets, layer.attention):
        torch.nn.init.normal_(linear.weight, std=0.3)
    query = torch.randn(2, 2, 2, 1, 5, requires_grad=True)
    scales = [torch.randn(2, 3, 4, 3, 2, requires_grad=True), torch.randn(2, 5, 2, 2, 1)]
    return layer, query, scales


def without_offsets(layer):
    torch.nn.init.zeros_(layer.offsets.weight)
    torch.nn.init.zeros_(layer.offsets.bias)


def test_equals_a_loop(attention):
    layer, query, scales = attention
    torch.testing.assert_close(layer(query, scales), looped(layer, query, scales))


def test_gradients_equal_those_of_a_loop(attention):
    layer, query, scales = attention
    inputs = [query, scales[0], *layer.parameters()]
    upstream = torch.randn(query.shape)
    fast = torch.autograd.grad((layer(query, scales) * upstream).sum(), inputs)
    slow = torch.autograd.grad((looped(layer, query, scales) * upstream).sum(), inputs)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_zero_offsets_read_the_voxel_itself():
    torch.manual_seed(0)
    layer = MultiScaleDeformableAttention(channels=4, scales=(4,), width=4, heads=2, points=2)
    without_offsets(layer)
    x = torch.randn(1, 4, 3, 2, 4)
    expected = layer.output(layer.values[0](x).movedim(1, -1))
    torch.testing.assert_close(layer(x.movedim(1, -1), [x]), expected)


def test_a_coarse_scale_is_read_where_the_query_is():
    coarse = torch.arange(4.0).view(1, 1, 4, 1, 1)
    layer = MultiScaleDeformableAttention(channels=1, scales=(1,), width=1, heads=1, points=1)
    without_offsets(layer)
    torch.nn.init.ones_(layer.values[0].weight)
    torch.nn.init.ones_(layer.output.weight)
    torch.nn.init.zeros_(layer.output.bias)
    read = layer(torch.zeros(1, 8, 1, 1, 1), [coarse]).flatten()
    # Centres of 8 voxels on a map of 4: a quarter of a coarse voxel off its centre.
    middle = [0.25, 0.75, 1.25, 1.75, 2.25, 2.75]
    torch.testing.assert_close(read[1:-1], torch.tensor(middle))


def test_sampling_between_voxels_and_outside():
    x = torch.randn(1, 2, 3, 4, 5)
    where = torch.tensor([[0.0, 0, 0], [1.5, 2.25, 3.75], [-0.5, 1, 4.5], [7, 7, 7]])
    read = sample_voxels(x, where.view(1, 4, 1, 1, 3)).view(2, 4)
    expected = torch.stack([trilinear(x[0], w) for w in where], dim=1)
    torch.testing.assert_close(read, expected)
    assert not read[:, 3].any()


def test_bfloat16_reads_at_exact_positions(attention):
    layer, query, scales = attention
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(query, scales)
    torch.testing.assert_close(half.float(), layer(query, scales), atol=0.05, rtol=0.05)


SHIFTS = list(itertools.product((-1, 0, 1), repeat=3))


def deformable(layer, x):
    """A deformable convolution, voxel by voxel and tap by tap (Dai et al. 2017, eq. 2-4)."""
    offsets = layer.offsets(x)
    columns = []
    for voxel in itertools.product(*map(range, x.shape[2:])):
        total = 0
        for tap, shift in enumerate(SHIFTS):
            offset = offsets[0, 3 * tap : 3 * tap + 3, voxel[0], voxel[1], voxel[2]]
            where = torch.tensor(voxel) + torch.tensor(shift) + offset
            a, b, c = (s + 1 for s in shift)
            total = total + layer.weight[:, :, a, b, c] @ trilinear(x[0], where)
        columns.append(total)
    return torch.stack(columns, dim=1).view(x.shape)


def warped(layer, x):
    """The map read at each voxel plus its offset, then a convolution."""
    offsets = layer.offsets(x)
    columns = []
    for voxel in itertools.product(*map(range, x.shape[2:])):
        columns.append(trilinear(x[0], torch.tensor(voxel) + offsets[0][:, *voxel]))
    moved = torch.stack(columns, dim=1).view(x.shape)
    return F.conv3d(moved, layer.convolution.weight, padding=1)


REFERENCES = [(DeformableConv3d, deformable), (WarpedConv3d, warped)]


@pytest.mark.parametrize(("kind", "reference"), REFERENCES)
def test_equals_a_loop_with_its_gradients(kind, reference):
    torch.manual_seed(0)
    layer, x = kind(2), torch.randn(1, 2, 2, 2, 3, requires_grad=True)
    torch.nn.init.normal_(layer.offsets.weight, std=0.1)
    fast, slow = layer(x), reference(layer, x)
    torch.testing.assert_close(fast, slow)
    upstream = torch.randn(x.shape)
    inputs = [x, *layer.parameters()]
    for a, b in zip(
        torch.autograd.grad((fast * upstream).sum(), inputs),
        torch.autograd.grad((slow * upstream).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [DeformableConv3d, WarpedConv3d])
def test_it_starts_as_an_ordinary_convolution(kind):
    torch.manual_seed(0)
    layer, x = kind(3), torch.randn(2, 3, 4, 5, 3)
    weight = layer.weight if kind is DeformableConv3d else layer.convolution.weight
    torch.testing.assert_close(layer(x), F.conv3d(x, weight, padding=1))


def test_memory_is_that_of_one_tap():
    layer, x = DeformableConv3d(4), torch.randn(1, 4, 6, 6, 6, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = layer(x)
    # The map and its offsets, [81, 6, 6, 6]; no sampled map, of which there are 27 [4, 6, 6, 6].
    assert sum(kept.values()) < (4 + 81) * 216 + 27 * 3 + 2 * 81 * 4 * 27 + 100
    assert output.requires_grad


@pytest.mark.parametrize("mode", MODES)
def test_attention_is_the_product_of_its_parts(mode):
    torch.manual_seed(0)
    block, x = DeformableLargeKernelAttention(4, mode), torch.randn(1, 4, 5, 5, 5)
    u = F.gelu(block.before(F.instance_norm(x)))
    weight = block.deform.weight if mode == "deformable" else block.deform.convolution.weight
    near = F.conv3d(F.conv3d(u, weight, padding=1), block.local.weight, padding=2, groups=4)
    far = F.conv3d(near, block.far.weight, padding=9, dilation=3, groups=4)
    torch.testing.assert_close(block(x), x + block.after(u * block.mix(far)))


@pytest.mark.parametrize("mode", MODES)
def test_a_voxel_sees_25_voxels_along_each_axis(mode):
    torch.manual_seed(0)
    block = DeformableLargeKernelAttention(1, mode)
    block.norm = torch.nn.Identity()
    for name, parameter in block.named_parameters():
        if "offsets" not in name:
            torch.nn.init.ones_(parameter)
    x = torch.rand(1, 1, 41, 3, 3, requires_grad=True)
    block(x)[0, 0, 20, 1, 1].backward()
    reached = (x.grad[0, 0].abs().sum((1, 2)) > 0.1).nonzero().flatten()
    assert (int(reached.min()), int(reached.max())) == (8, 32)


def test_an_unknown_mode_is_named():
    with pytest.raises(ModelError, match="unknown mode 'wrap'"):
        DeformableLargeKernelAttention(4, "wrap")
