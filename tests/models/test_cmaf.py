"""Cross-modality attention fusion against its definition, voxel by voxel."""

import torch

from gliomoe.models.blocks.cmaf import CMAF


def slow(layer: CMAF, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """MGMT-Net §3.1 in loops, normalised by the running statistics."""
    norm, (first, _, _, second, _, third) = layer.norm, layer.attention
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    matrix = layer.projection.weight.flatten(1)
    b, m, _, *grid = x.shape
    fused = torch.zeros(b, len(matrix), *grid)
    weights = torch.zeros(b, m, *grid)
    for study in range(b):
        for voxel in torch.cartesian_prod(*(torch.arange(side) for side in grid)).tolist():
            i, j, k = voxel
            embedded = [
                ((matrix @ x[study, s, :, i, j, k] - norm.running_mean) * scale + norm.bias).relu()
                for s in range(m)
            ]
            hidden = torch.cat(embedded)
            for linear in (first, second):
                hidden = (linear.weight.flatten(1) @ hidden + linear.bias).relu()
            shares = (third.weight.flatten(1) @ hidden + third.bias).softmax(0)
            weights[study, :, i, j, k] = shares
            fused[study, :, i, j, k] = sum(
                share * e for share, e in zip(shares, embedded, strict=True)
            )
    return fused, weights


def evaluated(**how) -> CMAF:
    torch.manual_seed(0)
    layer = CMAF(3, 4, **how)
    layer.train()(torch.randn(2, 3, how.get("channels_in", 1), 4, 4, 4))
    return layer.eval()


def test_equals_the_definition_with_gradients():
    layer = evaluated(channels_in=2)
    x = torch.randn(2, 3, 2, 2, 3, 2)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    fast, slowly = layer(a), slow(layer, b)
    for one, other in zip(fast, slowly, strict=True):
        torch.testing.assert_close(one, other)
    upstream = [torch.randn_like(one) for one in fast]
    torch.autograd.backward(fast, upstream)
    grads = {name: p.grad.clone() for name, p in layer.named_parameters()}
    layer.zero_grad()
    torch.autograd.backward(slowly, upstream)
    torch.testing.assert_close(a.grad, b.grad)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, msg=name)


def test_widths_of_the_perceptron_are_the_papers():
    first, _, dropout, second, _, third = CMAF(4, 16).attention
    assert [layer.out_channels for layer in (first, second, third)] == [64, 8, 4]
    assert first.in_channels == 64
    assert dropout.p == 0.2


def test_channels_of_one_modality_start_unlike_each_other():
    layer = CMAF(2, 8)
    values = torch.rand(1, 2, 1, 6, 6, 6)
    projected = torch.relu(layer.norm(layer.projection(values.flatten(0, 1))))
    channels = projected.movedim(1, 0).flatten(1)
    channels = channels[channels.std(1) > 0]
    correlation = channels.corrcoef() - 2 * torch.eye(len(channels))
    assert len(channels) >= 6
    assert (correlation.max(1).values < 0.9999).all()


def test_one_modality_has_all_the_weight():
    _, weights = CMAF(1, 4).eval()(torch.rand(2, 1, 1, 3, 3, 3))
    assert weights.eq(1).all()
