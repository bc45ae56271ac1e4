"""Tumour-aware feature encoding pools the last stages and nothing else."""

import pytest
import torch

from gliomoe.models.blocks.tafe import TumourAwareFeatures


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_against_loops(stages):
    torch.manual_seed(0)
    channels = (4, 3, 5, 2, 6)
    pyramid = [torch.randn(2, c, 4, 3, n + 1) for n, c in enumerate(channels)]
    tafe = TumourAwareFeatures(channels[-stages:], 7, dropout=0.0)
    for study in range(2):
        means = [
            sum(voxel for voxel in level[study, c].flatten()) / level[study, c].numel()
            for level in pyramid[-stages:]
            for c in range(level.shape[1])
        ]
        x = tafe.project.weight @ torch.stack(means) + tafe.project.bias
        x = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
        expected = x * torch.distributions.Normal(0.0, 1.0).cdf(x)  # GELU
        torch.testing.assert_close(tafe(pyramid)[study], expected)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    tafe, pyramid = TumourAwareFeatures((3,), 64, dropout=0.5), [torch.randn(1, 3, 2, 2, 2)]
    kept = tafe.eval()(pyramid)
    assert torch.equal(tafe(pyramid), kept)
    assert (tafe.train()(pyramid).eq(0) & kept.ne(0)).any()
