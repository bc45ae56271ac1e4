"""Recomputed blocks: the same gradients, less memory, and a batch counted once."""

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from gliomoe.models.recompute import Recomputable, set_recompute


class Block(Recomputable):
    def __init__(self):
        super().__init__()
        self.mix = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.GELU())

    def forward(self, x, scale):
        return {"x": x + scale * self.mix(x)}


def trained(recompute):
    """Gradients, running statistics and saved bytes of three blocks in a row."""
    torch.manual_seed(0)
    blocks = nn.ModuleList(Block() for _ in range(3))
    set_recompute(blocks, recompute)
    x = torch.randn(16, 8, requires_grad=True)
    saved = []
    with saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        y = x
        for block in blocks:
            y = block(y, scale=0.5)["x"]
    y.square().sum().backward()
    return [p.grad for p in blocks.parameters()] + [x.grad], list(blocks.buffers()), sum(saved)


def test_gradients_and_statistics_are_the_same_and_less_is_saved():
    kept, recomputed = trained(False), trained(True)
    for a, b in zip(kept[0], recomputed[0], strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(kept[1], recomputed[1], strict=True):
        if a.is_floating_point():
            torch.testing.assert_close(a, b)
    assert recomputed[2] < kept[2] / 2


def test_nothing_is_computed_twice_without_gradients():
    block = Block().eval()
    set_recompute(block, True)
    with torch.no_grad():
        x = torch.ones(2, 8)
        assert torch.equal(block(x, 1.0)["x"], x + block.mix(x))
