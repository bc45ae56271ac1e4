"""Regions of a few voxels: which volume is chosen, and what leaving out changes."""

import itertools

import numpy as np
import pytest
import torch

from gliomoe.data_shards.labels import REGIONS, from_regions
from gliomoe.finetune.specks import Extent, smallest_ml, volumes_ml, without_specks

SPACING = torch.tensor([2.0, 5.0, 10.0])
"""Ten voxels make one millilitre."""


def chosen(extents, most=1.0):
    return smallest_ml([{"ET": extent} for extent in extents], most)["ET"]


def test_volumes_are_in_millilitres():
    masks = torch.zeros(2, 4, 4, 4, dtype=torch.bool)
    masks[1, 0, 0, :3] = True
    assert volumes_ml(masks, SPACING).tolist() == pytest.approx([0, 0.3])


def test_a_small_region_is_left_out_and_its_voxels_stay_in_the_region_around():
    regions = torch.zeros(len(REGIONS), 4, 4, 4)
    regions[0, 0, 0, :3] = 0.9
    regions[1, 0, :2] = 0.8
    regions[2, 0] = 0.7
    before = regions.clone()
    found, left_out = without_specks(regions, SPACING, {"ET": 0.3, "WT": 0.3})
    assert torch.equal(regions, before) and left_out == {"ET": pytest.approx(0.3)}
    assert (found[0] < 0.5).all() and torch.equal(found[1:], before[1:])
    labels = from_regions(found > 0.5)
    assert labels.unique().tolist() == [0, 1, 2] and (labels == 1).sum() == 8
    for kept in ({"ET": 0.29}, {"TC": 0.3}, {}):
        found, left_out = without_specks(regions, SPACING, kept)
        assert torch.equal(found, before) and not left_out


def test_the_volume_separates_noise_from_tumour():
    noise = [Extent(0.0, 0.1, 0.0), Extent(0.0, 0.2, 0.0), Extent(1.0, 0.0, 0.0)]
    tumour = [Extent(0.8, 0.8, 0.9), Extent(0.9, 6.0, 5.0)]
    assert chosen(noise + tumour) == pytest.approx((0.2 * 0.8) ** 0.5)


def test_nothing_is_left_out_without_a_gain():
    assert chosen([Extent(0.3, 0.1, 0.5), Extent(0.9, 6.0, 5.0)]) == 0
    assert chosen([Extent(1.0, 0.0, 0.0)]) == 0
    # Missed all the same, with or without these voxels.
    assert chosen([Extent(0.0, 0.1, 0.5)]) == 0
    assert smallest_ml([], 1.0) == {}


@pytest.mark.parametrize(("most", "expected"), [(0.0, 0), (0.1, 0), (0.5, 0.5), (9.0, 2.0)])
def test_no_volume_above_the_largest_allowed(most, expected):
    noise = [Extent(0.0, 0.4, 0.0), Extent(0.0, 2.0, 0.0)]
    assert chosen(noise, most) == pytest.approx(expected)


def test_no_other_volume_has_a_higher_dice():
    rng = np.random.default_rng(0)
    for _ in range(30):
        volumes, empty = rng.exponential(0.5, 8), rng.random(8) < 0.5
        extents = [
            Extent(0.0 if bare else float(rng.random()), float(volume), 0.0 if bare else 1.0)
            for volume, bare in zip(volumes, empty, strict=True)
        ]
        found = chosen(extents)

        def score(limit, extents=extents):
            return np.mean([e.dice if e.predicted_ml > limit else e.true_ml == 0 for e in extents])

        limits = itertools.chain([0.0], (v for v in volumes if v <= 1.0))
        assert score(found) == pytest.approx(max(score(limit) for limit in limits))
