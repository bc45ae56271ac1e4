"""Both fusions of MDL-CA against their formulas, position by position."""

import itertools

import torch
import torch.nn.functional as F

from gliomoe.models.blocks.cross_attention_fusion import (
    CrossAttentionFusion,
    CrossModalGraphAttention,
)

SIDES = (2, 3, 2)
POSITIONS = list(itertools.product(*(range(side) for side in SIDES)))


def gradients_agree(module, fast, slow):
    probe = torch.randn(fast.shape, generator=torch.Generator().manual_seed(3))
    parameters = dict(module.named_parameters())
    a = torch.autograd.grad((fast * probe).sum(), list(parameters.values()))
    b = torch.autograd.grad((slow * probe).sum(), list(parameters.values()))
    for name, one, other in zip(parameters, a, b, strict=True):
        torch.testing.assert_close(one, other, msg=name, atol=1e-4, rtol=1e-4)


def test_graph_attention_of_every_position():
    torch.manual_seed(0)
    layer = CrossModalGraphAttention(5, 4, 3)
    mri, genes = torch.randn(2, 5, *SIDES), torch.randn(2, 7, 4)
    enhanced, attention = layer(mri, genes)
    slow, shares = torch.zeros(2, 5, *SIDES), torch.zeros(2, 7, *SIDES)
    for b, (d, h, w) in itertools.product(range(2), POSITIONS):
        feature = mri[b, :, d, h, w]
        scores = []
        for gene in genes[b]:
            both = torch.cat([layer.mri.weight @ feature, layer.gene.weight @ gene])
            scores.append(F.leaky_relu(layer.score.weight[0] @ both, 0.2))
        share = torch.stack(scores).softmax(0)
        shares[b, :, d, h, w] = share
        slow[b, :, d, h, w] = feature + sum(
            s * (layer.value.weight @ gene) for s, gene in zip(share, genes[b], strict=True)
        )
    torch.testing.assert_close(attention, shares)
    torch.testing.assert_close(enhanced, slow)
    gradients_agree(layer, enhanced, slow)


def test_fusion_of_every_position():
    torch.manual_seed(0)
    layer = CrossAttentionFusion(5, 4, 6, 3)
    mri, genomic = torch.randn(2, 5, *SIDES), torch.randn(2, 4)
    fused, weight = layer(mri, genomic)
    slow, shares = torch.zeros(2, 6, *SIDES), torch.zeros(2, 1, *SIDES)
    for b, (d, h, w) in itertools.product(range(2), POSITIONS):
        image = layer.mri.weight @ mri[b, :, d, h, w] + layer.mri.bias
        genes = layer.genomic.weight @ genomic[b] + layer.genomic.bias
        query = layer.query.weight @ genes + layer.query.bias
        scores = [
            layer.score.weight[0] @ torch.tanh(query + layer.key.weight @ embedding)
            for embedding in (image, genes)
        ]
        share = torch.stack(scores).softmax(0)
        shares[b, 0, d, h, w] = share[0]
        slow[b, :, d, h, w] = share[0] * image + share[1] * genes
    torch.testing.assert_close(weight, shares)
    torch.testing.assert_close(fused, slow)
    gradients_agree(layer, fused, slow)
