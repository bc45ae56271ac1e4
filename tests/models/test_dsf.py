"""Fusion of two vectors reads both."""

import torch

from gliomoe.models.blocks.dsf import DualStreamFusion


def test_shape_and_both_inputs_count():
    torch.manual_seed(0)
    fusion = DualStreamFusion(8, 4, dropout=0.0)
    tafe = torch.randn(3, 8, requires_grad=True)
    cmd = torch.randn(3, 4, requires_grad=True)
    logit = fusion(tafe, cmd)
    assert logit.shape == (3, 1)
    logit.sum().backward()
    assert tafe.grad.ne(0).any(1).all() and cmd.grad.ne(0).any(1).all()


def test_neither_stream_drowns_the_other():
    torch.manual_seed(0)
    fusion = DualStreamFusion(8, 4, dropout=0.0)
    tafe, cmd = torch.randn(2, 8), torch.randn(2, 4)
    torch.testing.assert_close(fusion(1000 * tafe, cmd), fusion(tafe, cmd), atol=1e-4, rtol=1e-4)
