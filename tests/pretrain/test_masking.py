"""Masks against counts."""

import pytest
import torch

from gliomoe.pretrain.samples.masking import apply_scores, draw_scores
from gliomoe.pretrain.sections import MaskConfig


def masks(tissue, ratio=0.75, predicted=1 / 3, seen=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.stack([draw_scores(tissue.shape[1:], generator) for _ in tissue])
    return apply_scores(tissue, scores, MaskConfig(ratio, predicted, seen))


def test_parts_of_the_tissue():
    tissue = torch.rand(3, 6, 5, 4) > 0.4
    mask = masks(tissue)
    positions = tissue.flatten(1).sum(1)
    masked = mask.masked.flatten(1).sum(1)
    assert torch.equal(masked, (positions * 0.75).round().long())
    assert torch.equal(mask.predict.flatten(1).sum(1), (masked / 3).ceil().long())
    assert torch.equal(mask.keep | mask.masked, tissue)
    assert not (mask.keep & mask.masked).any()
    assert not (mask.predict & ~mask.masked).any()


def test_all_masked_positions_are_predicted_in_parity_mode():
    mask = masks(torch.ones(2, 3, 3, 3, dtype=torch.bool), predicted=1)
    assert torch.equal(mask.predict, mask.masked)


def test_a_part_of_what_is_seen_is_predicted_too():
    tissue = torch.rand(3, 6, 5, 4) > 0.4
    some, all_, none = (masks(tissue, seen=part) for part in (0.5, 1.0, 0.0))
    for mask in (some, all_):
        assert torch.equal(mask.keep, none.keep)
        assert torch.equal(mask.predict & mask.masked, none.predict)
    seen = some.keep.flatten(1).sum(1)
    assert torch.equal((some.predict & some.keep).flatten(1).sum(1), (seen / 2).ceil().long())
    assert torch.equal(all_.predict & all_.keep, all_.keep)


@pytest.mark.parametrize("positions", [0, 1, 2])
def test_a_study_with_hardly_any_tissue(positions):
    tissue = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    tissue.view(-1)[:positions] = True
    mask = masks(tissue, ratio=0.9)
    assert mask.keep.sum() == min(positions, 1)
    assert mask.masked.sum() == max(positions - 1, 0)


def test_every_position_is_seen_equally_often():
    tissue = torch.ones(1, 2, 2, 2, dtype=torch.bool)
    seen = sum(masks(tissue, seed=seed).keep.float() for seed in range(800))
    assert (seen / 800 - 0.25).abs().max() < 0.06
