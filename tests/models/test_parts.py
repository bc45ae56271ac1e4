"""Stems, positions, attention, tissue and heads against slow references."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from gliomoe.data_shards.batch import StudyBatch
from gliomoe.models.attention import packed_attention
from gliomoe.models.features import Features
from gliomoe.models.heads.markers import MarkerHead, region_means, region_sizes
from gliomoe.models.heads.segmentation import SegmentationHead
from gliomoe.models.position import centres, rotary_angles, rotate
from gliomoe.models.stem import DetailStem, PatchStem
from gliomoe.models.tissue import pad_to_multiple, patches, tissue_positions


def test_patch_stem_equals_a_loop():
    torch.manual_seed(0)
    stem = PatchStem(patch_size=2, hidden=6, width=5, fusion="scalar")
    rows = [torch.rand(3, 8), torch.rand(3, 8), torch.rand(1, 8)]
    sequence, study = torch.tensor([0, 3, 1]), torch.tensor([0, 0, 1])
    weight = stem.weight.base + stem.weight.by_sequence
    bias = stem.bias.base + stem.bias.by_sequence
    hidden = [
        torch.nn.functional.gelu(row @ weight[s].T + bias[s])
        for row, s in zip(rows, sequence, strict=True)
    ]
    fused = torch.cat([(hidden[0] + hidden[1]) / 2, hidden[2]])
    expected = stem.projection(stem.norm(fused))
    torch.testing.assert_close(stem(rows, sequence, study, 2), expected)


def test_detail_stem_equals_a_loop():
    torch.manual_seed(0)
    stem = DetailStem(channels=4, fusion="mean")
    voxels = torch.rand(3, 1, 2, 3, 4)
    sequence, study = torch.tensor([5, 2, 2]), torch.tensor([0, 1, 1])
    maps = []
    for volume, s in zip(voxels, sequence, strict=True):
        weight = (stem.weight.base + stem.weight.by_sequence[s]).view(4, 1, 1, 1)
        bias = (stem.bias.base + stem.bias.by_sequence[s]).view(4, 1, 1, 1)
        maps.append(torch.nn.functional.leaky_relu(volume * weight + bias, 0.01))
    expected = torch.stack([maps[0], (maps[1] + maps[2]) / 2])
    torch.testing.assert_close(stem(voxels, sequence, study, 2), expected)


def test_rotary_products_depend_on_the_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(1, 2, 1, 20), torch.randn(1, 2, 1, 20)

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (rotate(q, rotary_angles(a, 20)) * rotate(k, rotary_angles(b, 20))).sum()

    a, b, shift = (torch.randn(1, 3) * 30 for _ in range(3))
    torch.testing.assert_close(product(a, b), product(a + shift, b + shift), atol=1e-3, rtol=1e-3)
    assert (product(a, b) - product(a, b + shift)).abs() > 1e-2


def test_rotation_turns_pairs_and_has_the_gradient_of_it():
    torch.manual_seed(0)
    cos, sin = rotary_angles(torch.randn(3, 3) * 30, 16)
    x = torch.randn(3, 2, 1, 16, dtype=torch.float64, requires_grad=True)
    turned = rotate(x, (cos, sin))
    for i in range(8):
        pair = torch.complex(x[..., i], x[..., i + 8])
        expected = pair * torch.complex(cos[..., i], sin[..., i]).to(torch.complex128)
        torch.testing.assert_close(turned[..., i], expected.real)
        torch.testing.assert_close(turned[..., i + 8], expected.imag)
    assert torch.autograd.gradcheck(lambda x: rotate(x, (cos, sin)), x)


def test_positions_are_millimetres_from_the_centre():
    position = torch.tensor([[0, 0, 0], [3, 1, 0]])
    fine = centres(position, (4, 2, 1), torch.tensor([[4.0, 4.0, 8.0]]).expand(2, 3))
    torch.testing.assert_close(fine, torch.tensor([[-6.0, -2.0, 0.0], [6.0, 2.0, 0.0]]))


@pytest.mark.parametrize("lengths", [[5, 5], [3, 7, 1], [4, 0, 2]])
def test_packed_attention_equals_masked_attention(lengths):
    torch.manual_seed(0)
    total = sum(lengths)
    q, k, v = (torch.randn(total, 2, 8) for _ in range(3))
    study = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    mask = study[:, None] == study[None]
    heads_first = (x.transpose(0, 1) for x in (q, k, v))
    expected = scaled_dot_product_attention(*heads_first, attn_mask=mask).transpose(0, 1)
    torch.testing.assert_close(packed_attention(q, k, v, lengths), expected)


def test_tissue_positions_equal_a_loop():
    torch.manual_seed(0)
    voxels = (torch.rand(3, 1, 7, 4, 9) > 0.97).float()
    batch = StudyBatch(voxels, torch.arange(3), torch.tensor([0, 0, 1]), torch.ones(2, 3))
    found = tissue_positions(batch, 4)
    assert found.shape == (2, 2, 1, 3)
    for study, volumes in ((0, [0, 1]), (1, [2])):
        for d, h, w in torch.cartesian_prod(*(torch.arange(n) for n in (2, 1, 3))).tolist():
            block = voxels[volumes, 0, 4 * d : 4 * d + 4, 4 * h : 4 * h + 4, 4 * w : 4 * w + 4]
            assert bool(found[study, d, h, w]) == bool(block.any())


def test_patches_are_a_view_of_the_blocks():
    voxels = torch.rand(2, 1, 4, 6, 8)
    grid = patches(voxels, 2)
    assert grid.shape == (2, 2, 3, 4, 2, 2, 2)
    assert torch.equal(grid[1, 1, 2, 3], voxels[1, 0, 2:4, 4:6, 6:8])
    assert grid.data_ptr() == voxels.data_ptr()


def test_padding_comes_last():
    padded = pad_to_multiple(torch.ones(1, 1, 3, 4, 5), 4)
    assert padded.shape == (1, 1, 4, 4, 8)
    assert padded[..., :3, :4, :5].all()
    assert padded.sum() == 60


def test_segmentation_head_follows_the_finest_level():
    head = SegmentationHead((4, 8, 12))
    pyramid = [
        torch.rand(1, 4, 13, 9, 6),
        torch.rand(1, 8, 7, 5, 3),
        torch.rand(1, 12, 4, 3, 2),
    ]
    assert head(pyramid).shape == (1, 3, 13, 9, 6)


def test_regions_are_described_by_weighted_means():
    torch.manual_seed(0)
    regions, detail = torch.rand(2, 3, 4, 4, 4), torch.rand(2, 5, 4, 4, 4)
    means = region_means(regions, detail)
    expected = (regions[1, 2] * detail[1, 3]).sum() / (regions[1, 2].sum() + 1)
    torch.testing.assert_close(means.view(2, 3, 5)[1, 2, 3], expected)


def test_sizes_of_parts_are_logarithms_of_millilitres():
    regions = torch.zeros(2, 3, 10, 10, 10)
    regions[0, 2, :5] = 0.9  # 500 voxels of whole tumour,
    regions[0, 1, :3] = 0.8  # 300 of them core,
    regions[0, 0, :1] = 0.7  # 100 of these enhancing
    regions[0, 0, 1:] = 0.4
    spacing = torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.0, 1.0]])  # 10 mm³, 1 mm³
    sizes = region_sizes(regions, spacing)
    torch.testing.assert_close(sizes[0].expm1(), torch.tensor([1.0, 2.0, 2.0, 3.0, 5.0]))
    assert not sizes[1].any()


def test_markers_look_where_the_tumour_is():
    torch.manual_seed(0)
    head = MarkerHead(["idh"], width=6, detail=2, patch_size=2, gated=True)
    position = torch.cartesian_prod(torch.arange(2), torch.arange(2), torch.arange(2))
    seg = torch.full((1, 3, 4, 4, 4), -12.0)
    seg[:, :, :2, :2, :2] = 12.0  # the patch of token 0

    def answer(changed: int) -> torch.Tensor:
        tokens = torch.zeros(8, 6)
        tokens[changed] = torch.tensor([4.0, -4.0, 3.0, 1.0, 0.0, -3.0])
        features = Features(
            pooled=torch.zeros(1, 6),
            tokens=tokens,
            study=torch.zeros(8, dtype=torch.int64),
            position=position,
            pyramid=[torch.zeros(1, 2, 4, 4, 4)],
        )
        return head(features, seg, torch.ones(1, 3))["idh"]

    nothing = answer(7)
    assert (answer(6) - nothing).abs() < 1e-3
    assert (answer(0) - nothing).abs() > 1e-2


def test_markers_do_not_bend_the_segmentation():
    head = MarkerHead(["idh"], width=6, detail=2, patch_size=2, gated=True)
    seg = torch.zeros(1, 3, 2, 2, 2, requires_grad=True)
    one = torch.zeros(1, dtype=torch.int64)
    features = Features(
        pooled=torch.zeros(1, 6),
        tokens=torch.rand(1, 6, requires_grad=True),
        study=one,
        position=one.expand(1, 3),
        pyramid=[torch.rand(1, 2, 2, 2, 2)],
    )
    head(features, seg, torch.ones(1, 3))["idh"].sum().backward()
    assert seg.grad is None
