"""Cross-modality differential against its formula, voxel by voxel."""

import itertools

import torch

from gliomoe.models.blocks.cmd import CrossModalityDifferential, gated_mean, tumour_gate


def convolved(x, conv):
    """A convolution with padding, as sums over the kernel."""
    edge = conv.kernel_size[0] // 2
    padded = torch.nn.functional.pad(x, (edge,) * 6)
    sides = x.shape[-3:]
    result = torch.zeros(len(x), conv.out_channels, *sides)
    for out, position in itertools.product(
        range(conv.out_channels), itertools.product(*(range(side) for side in sides))
    ):
        d, h, w = position
        k = conv.kernel_size[0]
        window = padded[:, :, d : d + k, h : h + k, w : w + k]
        result[:, out, d, h, w] = (window * conv.weight[out]).sum((1, 2, 3, 4)) + conv.bias[out]
    return result


def test_against_the_formula():
    torch.manual_seed(0)
    cmd = CrossModalityDifferential(3, gamma=1.7)
    t2, flair = torch.rand(2, 1, 3, 4, 2), torch.rand(2, 1, 3, 4, 2)
    of_t2, of_flair = convolved(t2, cmd.features), convolved(flair, cmd.features)
    difference = 1.7 * (of_t2 - of_flair)
    pooled = torch.stack([difference.max(dim=1).values, difference.mean(dim=1)], dim=1)
    attention = 1 / (1 + (-convolved(pooled, cmd.attention)).exp())
    modulated, found = cmd(t2, flair)
    torch.testing.assert_close(found, attention)
    torch.testing.assert_close(modulated[:, :3], of_t2 * attention)
    torch.testing.assert_close(modulated[:, 3:], of_flair * attention)


def test_equal_images_have_the_same_attention_everywhere():
    torch.manual_seed(0)
    cmd = CrossModalityDifferential(4, gamma=2.0)
    image = torch.rand(1, 1, 5, 5, 5)
    _, attention = cmd(image, image)
    torch.testing.assert_close(attention, attention[..., :1, :1, :1].expand_as(attention))
    _, changed = cmd(image + torch.rand_like(image), image)
    assert changed.std() > 1e-3


def test_amplification_widens_the_attention():
    torch.manual_seed(0)
    weak, strong = CrossModalityDifferential(4, 1.1), CrossModalityDifferential(4, 4.0)
    strong.load_state_dict(weak.state_dict())
    images = torch.rand(1, 1, 6, 6, 6), torch.rand(1, 1, 6, 6, 6)
    assert strong(*images)[1].std() > 2 * weak(*images)[1].std()


def test_gate_and_gated_mean():
    probability = torch.tensor([0.0, 0.05, 0.1, 0.4, 1.0])
    expected = torch.tensor([0.1, 0.1, 0.1, 0.4, 1.0])
    assert torch.equal(tumour_gate(probability, 0.1), expected)
    features = torch.randn(2, 3, 1, 1, 5)
    gate = tumour_gate(torch.stack([probability, probability.flip(0)]), 0.1).view(2, 1, 1, 1, 5)
    found = gated_mean(features, gate)
    for study, channel in itertools.product(range(2), range(3)):
        weights = gate[study].flatten().tolist()
        values = features[study, channel].flatten().tolist()
        mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
        assert abs(found[study, channel].item() - mean) < 1e-6
    torch.testing.assert_close(gated_mean(features, None), features.mean((2, 3, 4)))


def test_what_segmentation_missed_still_counts():
    features = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    gated_mean(features, tumour_gate(torch.zeros(1, 1, 3, 3, 3), 0.1)).sum().backward()
    assert features.grad.ne(0).all()
