"""The edge of a phantom brain: one piece, with vessels and dura in place of fluid."""

import numpy as np
import pytest
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.brain import (
    _largest_part,
    build_anatomy,
    draw_head_shape,
)
from gliomoe.data_shards.phantom.anatomy.envelope import envelope
from gliomoe.data_shards.phantom.composition import compose
from gliomoe.data_shards.phantom.grid import brain_grid
from gliomoe.data_shards.phantom.scanner.tissues import TISSUES


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_islands_of_a_mask_are_left_out():
    mask = np.zeros((12, 12, 12), bool)
    mask[2:8, 2:8, 2:8] = True
    whole = mask.copy()
    mask[10, 10, 10] = mask[0, 0, 0] = True
    np.testing.assert_array_equal(_largest_part(mask), whole)


@pytest.mark.parametrize("spacing", [1.5, 3.0])
def test_vessels_and_dura_take_the_place_of_fluid(spacing):
    seen = build_anatomy(draw_head_shape(rng(1), age=60), brain_grid(spacing))
    shares = envelope(seen, rng(2))
    assert set(shares) == {"vessel", "dura"} <= set(TISSUES)
    assert min(share.min() for share in shares.values()) >= 0
    assert (sum(shares.values()) <= seen.csf + 1e-6).all()
    depth = ndimage.distance_transform_edt(seen.brain) * spacing
    # Dura at the rim alone, vessels in the sulci, neither deep in the brain.
    assert shares["dura"][depth > 9].max() == 0 < shares["dura"][depth < 4].max()
    assert shares["vessel"][depth > 32].max() == 0
    assert 4 < shares["vessel"].sum() * spacing**3 / 1000 < 40  # ml
    bound = compose(seen, envelope=shares)
    np.testing.assert_allclose(sum(bound.values()), seen.brain, atol=1e-5)


def test_vessels_are_the_same_at_every_spacing():
    head = draw_head_shape(rng(1), age=60)
    volumes = [
        envelope(build_anatomy(head, brain_grid(mm)), rng(2))["vessel"].sum() * mm**3
        for mm in (1.5, 3.0)
    ]
    assert volumes[1] == pytest.approx(volumes[0], rel=0.25)
