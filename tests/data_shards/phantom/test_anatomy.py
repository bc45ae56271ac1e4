"""Phantom brains: the template, its deformation, what ails it."""

import numpy as np
import pytest

from gliomoe.data_shards.phantom.anatomy.brain import (
    HeadShape,
    build_anatomy,
    draw_head_shape,
    tissue_maps,
)
from gliomoe.data_shards.phantom.anatomy.lesions import stroke, white_matter_lesions
from gliomoe.data_shards.phantom.composition import compose
from gliomoe.data_shards.phantom.grid import MODEL_GRID, WARP_GRID, Grid, brain_grid, smooth_noise
from gliomoe.data_shards.phantom.scanner.tissues import TISSUES


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def anatomy():
    return build_anatomy(draw_head_shape(rng(), age=40), MODEL_GRID)


@pytest.mark.slow
def test_template_is_what_nilearn_gives():
    from nilearn import datasets

    grid, ours = tissue_maps(1.0)
    images = [
        load(resolution=1)
        for load in (
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    ]
    theirs = np.stack([image.get_fdata(dtype=np.float32) for image in images])
    whole = Grid(theirs.shape[1:], 1.0, tuple(images[0].affine[:3, 3]))
    theirs = whole.sample(theirs, grid.points())
    brain = (theirs[2] == 1) & (grid.points()[2] >= whole.origin[2])
    np.testing.assert_allclose(ours[:2, brain], theirs[:2, brain], atol=1e-5)
    # Ours fills the holes of nilearn's mask and misses nothing of it.
    assert ours[2, brain].all()
    assert ours[2].sum() < 1.001 * brain.sum()


def test_resampling_agrees_with_sampling():
    field = smooth_noise(rng(), 6.0, channels=2)
    grid = brain_grid(2.3)
    np.testing.assert_allclose(
        MODEL_GRID.resample(field, grid), MODEL_GRID.sample(field, grid.points()), atol=1e-4
    )


def test_affine_gives_the_points():
    grid = brain_grid(4.0)
    corner = grid.affine @ [*(side - 1 for side in grid.shape), 1]
    np.testing.assert_allclose(grid.points()[:, -1, -1, -1], corner[:3], atol=1e-4)


def test_identity_shape_gives_the_template():
    still = HeadShape(np.zeros((3, *MODEL_GRID.shape), np.float32), atrophy=0.0)
    anatomy = build_anatomy(still, MODEL_GRID)
    assert 1500 < anatomy.brain.sum() * MODEL_GRID.spacing**3 / 1000 < 2100  # ml
    np.testing.assert_allclose(anatomy.position, MODEL_GRID.points())


@pytest.mark.parametrize("seed", range(4))
def test_deformation_does_not_fold(seed):
    shape = draw_head_shape(rng(seed), age=75)
    moved = shape.displacement + MODEL_GRID.points()
    gradients = np.stack([np.stack(np.gradient(axis, MODEL_GRID.spacing)) for axis in moved])
    jacobian = np.linalg.det(np.moveaxis(gradients, (0, 1), (-2, -1)))
    assert jacobian.min() > 0


def test_csf_grows_with_age():
    def csf(age: float) -> float:
        shapes = [draw_head_shape(rng(seed), age) for seed in range(3)]
        return sum(build_anatomy(shape, WARP_GRID).csf.sum() for shape in shapes)

    assert csf(85) > 1.1 * csf(25)


def test_tissue_sums_to_the_brain(anatomy):
    lesions = {
        "lesion": white_matter_lesions(anatomy, rng()),
        "infarct": stroke(anatomy, rng()),
    }
    shares = compose(anatomy, lesions=lesions)
    assert set(shares) <= set(TISSUES)
    np.testing.assert_allclose(sum(shares.values()), anatomy.brain, atol=1e-5)
    assert min(share.min() for share in shares.values()) > -1e-6
    for lesion in lesions.values():
        assert 1 < lesion.sum() * MODEL_GRID.spacing**3 / 1000 < 150  # ml
