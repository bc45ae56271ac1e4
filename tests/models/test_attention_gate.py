"""Attention gates against their definition."""

import itertools

import pytest
import torch

from gliomoe.models.blocks.attention_gate import AttentionGate, enlarge


def halfway(coarse: torch.Tensor, place: tuple[int, ...]) -> torch.Tensor:
    """Trilinear value of [C, d, h, w] at the centre of a voxel of the grid twice as fine."""
    total = torch.zeros(coarse.shape[0])
    for corner in itertools.product((0, 1), repeat=3):
        weight, index = 1.0, []
        for axis, (at, side) in enumerate(zip(place, coarse.shape[1:], strict=True)):
            position = min(max((at + 0.5) / 2 - 0.5, 0), side - 1)
            low = int(position)
            weight *= position - low if corner[axis] else 1 - (position - low)
            index.append(min(low + corner[axis], side - 1))
        total = total + weight * coarse[:, index[0], index[1], index[2]]
    return total


@pytest.mark.parametrize("sides", [(4, 2, 6), (3, 5, 1)])
def test_gate_equals_the_definition(sides):
    torch.manual_seed(0)
    gate = AttentionGate(skip=3, gating=5, hidden=4)
    coarse = [-(-side // 2) for side in sides]
    x, g = torch.randn(1, 3, *sides), torch.randn(1, 5, *coarse)
    output, alpha = gate(x, g)
    scores = torch.zeros(1, *coarse)
    for i, j, k in itertools.product(*(range(side) for side in coarse)):
        hidden = gate.gating.weight.flatten(1) @ g[0, :, i, j, k] + gate.gating.bias
        for a, b, c in itertools.product((0, 1), repeat=3):
            place = (2 * i + a, 2 * j + b, 2 * k + c)
            if all(p < side for p, side in zip(place, sides, strict=True)):
                hidden = hidden + gate.skip.weight[..., a, b, c] @ x[(0, slice(None), *place)]
        score = gate.score.weight.flatten(1) @ hidden.relu() + gate.score.bias
        scores[0, i, j, k] = score.sigmoid()
    for place in itertools.product(*(range(side) for side in sides)):
        expected = halfway(scores, place)[0]
        torch.testing.assert_close(alpha[(0, 0, *place)], expected)
        at = (0, slice(None), *place)
        torch.testing.assert_close(output[at], x[at] * expected)


def test_gate_starts_open():
    torch.manual_seed(0)
    gate = AttentionGate(skip=8, gating=16, hidden=4)
    _, alpha = gate(torch.randn(1, 8, 8, 8, 8), torch.randn(1, 16, 4, 4, 4))
    assert alpha.min() > 0.5


def test_enlarge_cuts_to_the_finer_level():
    assert enlarge(torch.rand(1, 2, 2, 3, 1), (3, 6, 1)).shape == (1, 2, 3, 6, 1)
