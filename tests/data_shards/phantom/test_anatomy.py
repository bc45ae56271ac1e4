"""Phantom anatomy: the template, its deformation and folding, the head around it, what ails it."""

import numpy as np
import pytest
from scipy import ndimage

from gliomoe.data_shards.phantom.anatomy.brain import (
    Anatomy,
    HeadShape,
    build_anatomy,
    draw_head_shape,
)
from gliomoe.data_shards.phantom.anatomy.folding import RIBBON_MM, draw_folding, fold
from gliomoe.data_shards.phantom.anatomy.head import FAT_MM, HEAD_TISSUES, SKIN_MM, head_tissues
from gliomoe.data_shards.phantom.anatomy.lesions import (
    ageing_lesions,
    stroke,
    white_matter_lesions,
)
from gliomoe.data_shards.phantom.anatomy.shape import asymmetry
from gliomoe.data_shards.phantom.anatomy.template import tissue_maps
from gliomoe.data_shards.phantom.composition import compose
from gliomoe.data_shards.phantom.grid import (
    MODEL_GRID,
    WARP_GRID,
    Grid,
    brain_grid,
    head_grid,
    head_padding,
    smooth_noise,
)
from gliomoe.data_shards.phantom.scanner.tissues import TISSUES
from gliomoe.data_shards.preprocess.atlas import brain_mask
from gliomoe.data_shards.preprocess.case import Series
from gliomoe.data_shards.preprocess.resample import resample_labels

VOXEL_ML = MODEL_GRID.spacing**3 / 1000
STILL = np.zeros((3, *MODEL_GRID.shape), np.float32)

INTENSITIES = {
    "t1": {"wm": 1.0, "gm": 0.7, "csf": 0.25, "marrow": 0.9, "scalp_fat": 1.5, "muscle": 0.55},
    "t2": {"wm": 0.5, "gm": 0.7, "csf": 1.9, "marrow": 0.6, "scalp_fat": 1.0, "muscle": 0.25},
    "flair": {"wm": 0.6, "gm": 0.8, "csf": 0.2, "marrow": 0.5, "scalp_fat": 1.0, "muscle": 0.35},
}
"""Skull and air are dark everywhere, and an eye is as bright as fluid."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def shares(anatomy: Anatomy) -> np.ndarray:
    """Share of grey matter, white matter and fluid in all of a brain."""
    return np.array([field.sum() for field in (anatomy.gm, anatomy.wm, anatomy.csf)]) / (
        anatomy.brain.sum()
    )


def ventricles(anatomy: Anatomy, side: int) -> np.ndarray:
    """A box around the body of the lateral ventricle of one side (1 is right), [D, H, W] bool."""
    x, y, z = anatomy.position
    return (side * x > 1) & (np.abs(x) < 26) & (np.abs(y + 5) < 35) & (np.abs(z - 15) < 14)


def ventricles_ml(anatomy: Anatomy, side: int) -> float:
    """Fluid in that box."""
    return float(anatomy.csf[ventricles(anatomy, side)].sum() * anatomy.grid.spacing**3 / 1000)


@pytest.fixture(scope="module")
def anatomy():
    return build_anatomy(draw_head_shape(rng(), age=40), MODEL_GRID)


@pytest.fixture(scope="module")
def person():
    """A shape, its brain at 2 mm and what is around it."""
    shape = draw_head_shape(rng(1), age=60)
    brain = build_anatomy(shape, brain_grid(2.0))
    return shape, brain, head_tissues(shape, brain, rng(1))


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
    anatomy = build_anatomy(HeadShape(STILL, atrophy=0.0), MODEL_GRID)
    assert 1500 < anatomy.brain.sum() * MODEL_GRID.spacing**3 / 1000 < 2100  # ml
    np.testing.assert_allclose(anatomy.position, MODEL_GRID.points())


@pytest.mark.parametrize("seed", range(4))
def test_deformation_does_not_fold(seed):
    shape = draw_head_shape(rng(seed), age=75)
    moved = shape.displacement + MODEL_GRID.points()
    gradients = np.stack([np.stack(np.gradient(axis, MODEL_GRID.spacing)) for axis in moved])
    jacobian = np.linalg.det(np.moveaxis(gradients, (0, 1), (-2, -1)))
    assert jacobian.min() > 0


def test_grey_matter_lines_a_sulcus():
    # Along a line through a sulcus in the unsure part of the mantle.
    distance = np.linspace(-9, 9, 1801).astype(np.float32)
    surface = np.stack([np.full_like(distance, 20), np.ones_like(distance)])
    sulcus, white = fold(np.full_like(distance, 0.4), distance, surface, 0.5, spacing=0.05)
    width = sulcus.mean() * 18
    assert 0.4 < width < 2
    banks = ((1 - white) * (1 - sulcus)).sum() * 0.01 / 2
    assert 2 < banks < 4
    assert abs(banks - RIBBON_MM) < 0.5
    # Larger voxels see as much of it.
    for spacing in (1.0, 3.0):
        coarse = fold(np.full_like(distance, 0.4), distance, surface, 0.5, spacing)
        np.testing.assert_allclose(coarse[0].mean(), sulcus.mean(), rtol=0.01)
        np.testing.assert_allclose(coarse[1].mean(), white.mean(), rtol=0.05)


def test_tissue_is_sharper_than_the_mean_of_heads(person):
    shape, brain, _ = person
    template, maps = tissue_maps(2.0)
    gm, wm, inside = template.sample(maps, brain.position)
    mean = np.stack([gm, wm, inside - gm - wm])[:, brain.brain]
    own = np.stack([brain.gm, brain.wm, brain.csf])[:, brain.brain]
    assert np.mean(own.max(0) > 0.9) > 1.5 * np.mean(mean.max(0) > 0.9)


def test_everyone_has_own_gyri_of_the_same_volume():
    one, other = (
        build_anatomy(HeadShape(STILL, 0.3, draw_folding(rng(seed))), MODEL_GRID) for seed in (0, 1)
    )
    depth = ndimage.distance_transform_edt(one.brain) * MODEL_GRID.spacing
    cortex, middle = one.brain & (depth < 18), one.brain & (depth > 45)
    assert np.abs(one.gm - other.gm)[cortex].mean() > 0.1
    assert np.abs(one.gm - other.gm)[middle].mean() < 0.05
    np.testing.assert_allclose(shares(one), shares(other), rtol=0.02)


def test_a_subject_is_the_same_at_every_spacing():
    shape = draw_head_shape(rng(3), age=60)
    fine, middle, coarse = (build_anatomy(shape, brain_grid(size)) for size in (1.5, 2.0, 4.0))
    np.testing.assert_allclose(shares(fine), shares(coarse), rtol=0.05)
    np.testing.assert_allclose(shares(fine), shares(middle), rtol=0.05)
    for other, likeness in ((middle, 0.95), (coarse, 0.88)):
        blur = np.sqrt(other.grid.spacing**2 - 1.5**2) / 1.5 / 2.355
        seen = fine.grid.resample(ndimage.gaussian_filter(fine.wm, blur), other.grid)
        inside = ndimage.binary_erosion(other.brain)
        assert np.corrcoef(seen[inside], other.wm[inside])[0, 1] > likeness


def test_shares_are_those_of_the_living():
    young = np.mean(
        [shares(build_anatomy(draw_head_shape(rng(seed), 25), MODEL_GRID)) for seed in range(4)], 0
    )
    # Of the space within the skull: Ge et al., AJNR 2002; fluid: Matsumae et al., 1996.
    assert 0.46 < young[0] < 0.56
    assert 0.32 < young[1] < 0.40
    assert 0.09 < young[2] < 0.15


def test_ventricles_hold_fluid_alone(person):
    _, brain, _ = person
    body = ventricles(brain, 1) | ventricles(brain, -1)
    template, maps = tissue_maps(2.0)
    gm, wm, inside = template.sample(maps, brain.position[:, body])
    own, mean = (
        field[field > 0.95].sum() / field.sum() for field in (brain.csf[body], inside - gm - wm)
    )
    assert own > 1.6 * mean
    assert own > 0.3


def test_left_and_right_differ():
    mirrored = asymmetry(torque=4.0, left_ventricle=3.0)
    shape = HeadShape(WARP_GRID.resample(mirrored, MODEL_GRID), atrophy=0.3)
    brain = build_anatomy(shape, brain_grid(2.0))
    x, y, _ = brain.grid.points()
    right, left = brain.brain & (x > 10), brain.brain & (x < -10)
    front, back = y > 30, y < -70
    assert (right & front).sum() > 1.03 * (left & front).sum()
    assert (left & back).sum() > 1.03 * (right & back).sum()
    assert ventricles_ml(brain, -1) > 1.15 * ventricles_ml(brain, 1)
    drawn = [draw_head_shape(rng(seed), 40).displacement for seed in range(12)]
    pull = np.mean(drawn, 0)[1]
    assert pull[_at(30, 40, 10)] < pull[_at(-30, 40, 10)]
    assert pull[_at(30, -80, 10)] < pull[_at(-30, -80, 10)]


def _at(*place: float) -> tuple[int, ...]:
    """Voxel of the model grid nearest to a place in mm."""
    return tuple(np.round((np.array(place) - MODEL_GRID.origin) / MODEL_GRID.spacing).astype(int))


def test_fluid_grows_with_age_by_published_amounts():
    def fluid(age: float) -> tuple[float, float]:
        brains = [build_anatomy(draw_head_shape(rng(seed), age), MODEL_GRID) for seed in range(6)]
        inner = [ventricles_ml(one, -1) + ventricles_ml(one, 1) for one in brains]
        return np.mean([one.csf.sum() for one in brains]) * VOXEL_ML, np.mean(inner)

    young, old = fluid(30), fluid(80)
    # 0.6 ml a year in sulci and 0.3 in ventricles: Pfefferbaum et al., Arch Neurol 1994.
    assert 0.5 < (old[0] - young[0]) / 50 < 1.5
    assert 0.1 < (old[1] - young[1]) / 50 < 0.5


def test_head_grid_is_the_brain_grid_padded():
    for spacing in (1.0, 2.3, 4.0):
        inner, outer = brain_grid(spacing), head_grid(spacing)
        for axis, (before, after) in enumerate(head_padding(spacing)):
            assert outer.shape[axis] == before + inner.shape[axis] + after
            assert outer.origin[axis] == pytest.approx(inner.origin[axis] - before * spacing)


def test_head_leaves_the_brain_alone_and_no_gap(person):
    _, brain, head = person
    assert set(head) == set(HEAD_TISSUES)
    inside = np.pad(brain.brain, head_padding(2.0))
    total = sum(field.astype(np.float32) for field in head.values())
    assert total.shape == head_grid(2.0).shape
    assert total[inside].max() == 0
    assert total.max() < 1.002
    assert min(field.min() for field in head.values()) > -1e-3
    around = ndimage.binary_dilation(inside, iterations=3) & ~inside
    height = head_grid(2.0).points()[2]
    assert total[around & (height > 0)].min() > 0.99


def test_shells_lie_in_order_and_have_the_thickness_of_heads():
    def crown(seed: int) -> dict[str, tuple[float, float]]:
        """Thickness and middle of each tissue, mm, along lines through the top of the head."""
        shape = draw_head_shape(rng(seed), age=50)
        head = head_tissues(shape, build_anatomy(shape, brain_grid(2.0)), rng(seed))
        grid = head_grid(2.0)
        x, y = (int(-start / 2) for start in grid.origin[:2])
        top = (slice(x - 8, x + 9), slice(y - 18, y - 1), slice(grid.shape[2] * 2 // 3, None))
        height = np.arange(grid.shape[2])[top[2]] * 2.0
        columns = {name: field[top].astype(np.float32) for name, field in head.items()}
        thick = {name: float(field.sum(2).mean() * 2) for name, field in columns.items()}
        return {
            name: (thick[name], float((field * height).sum() / max(field.sum(), 1e-6)))
            for name, field in columns.items()
        }

    people = [crown(seed) for seed in range(4)]
    for found in people:
        # Skull 5.3 to 7.5 mm (Moreira-Gonzalez et al., 2006), a slope and a person more or less.
        assert 4.3 < found["skull"][0] + found["marrow"][0] < 9.5
        assert 0.35 < found["marrow"][0] / (found["skull"][0] + found["marrow"][0]) < 0.65
        assert 1 < found["scalp_fat"][0] < FAT_MM[0] + 3 * FAT_MM[1] + 1.5
        assert abs(found["muscle"][0] - SKIN_MM) < 1
        middles = [found[name][1] for name in ("csf", "skull", "scalp_fat", "muscle")]
        assert middles == sorted(middles)
        assert abs(found["marrow"][1] - found["skull"][1]) < 1
        assert found["eye"][0] == 0
    assert np.std([found["skull"][0] for found in people]) > 0.1


def test_eyes_have_the_volume_of_eyes(person):
    _, _, head = person
    for half in (slice(None, 48), slice(48, None)):
        assert 4 < head["eye"][half].astype(np.float32).sum() * 0.008 < 12  # ml, 6 to 7 in life


def test_a_head_is_the_same_at_every_spacing(person):
    shape, _, head = person
    coarse = head_tissues(shape, build_anatomy(shape, brain_grid(4.0)), rng(1))
    for name, field in head.items():
        fine, rough = (
            volume.astype(np.float32).sum() * spacing**3
            for volume, spacing in ((field, 2.0), (coarse[name], 4.0))
        )
        assert rough == pytest.approx(fine, rel=0.15), name


@pytest.mark.parametrize("sequence", INTENSITIES)
def test_brain_extraction_finds_the_brain(person, sequence):
    _, brain, head = person
    bright = INTENSITIES[sequence]
    bright = {**bright, "skull": 0.05, "eye": bright["csf"]}
    image = sum(bright[name] * field.astype(np.float32) for name, field in head.items())
    padding = head_padding(2.0)
    image += np.pad(
        sum(bright[name] * getattr(brain, name) for name in ("gm", "wm", "csf")), padding
    )
    noise = 0.015 * rng(5).standard_normal((2, *image.shape), np.float32)
    image = 1000 * np.hypot(image + noise[0], noise[1])
    affine = head_grid(2.0).affine
    found = brain_mask(Series(image.astype(np.float32), affine), spacing=3.0)
    mask = resample_labels(found.data.astype(np.uint8), found.affine, affine, image.shape) > 0
    truth = np.pad(brain.brain, padding)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


def test_ageing_lesions_have_published_volumes(anatomy):
    def volumes(age: float) -> np.ndarray:
        return VOXEL_ML * np.array(
            [ageing_lesions(anatomy, rng(seed), age).sum() for seed in range(16)]
        )

    young, middle, old = volumes(30), volumes(62), volumes(80)
    assert np.median(young) == 0
    assert young.max() < 1
    # Mean 4.9 ml at 60 to 64 years: Wen and Sachdev, NeuroImage 2004.
    assert 3.5 < middle.mean() < 6.5
    assert np.median(old) > 2 * np.median(middle)
    assert old.max() < 45


def test_ageing_lesions_cap_the_ventricles_and_dot_the_rest(anatomy):
    lesion = sum(ageing_lesions(anatomy, rng(seed), 62) for seed in range(6))
    assert (lesion[anatomy.wm == 0] == 0).all()
    x, y, z = anatomy.position
    white = anatomy.wm > 0.5
    horns = white & (np.abs(x) < 28) & (np.abs(y - 24) < 14) & (np.abs(z - 14) < 14)
    assert lesion[horns].mean() > 3 * lesion[white].mean()
    one = ageing_lesions(anatomy, rng(2), 62) > 0.25
    assert 4 < ndimage.label(one)[1] < 60
    edge = ndimage.distance_transform_edt(anatomy.wm > 0.5) * MODEL_GRID.spacing
    shallow = white & (edge < 3.1) & (np.abs(x) > 32)
    assert lesion[shallow].mean() < 0.5 * lesion[white].mean()


@pytest.mark.parametrize("seed", range(3))
def test_diseases_have_their_size_and_side(anatomy, seed):
    white = white_matter_lesions(anatomy, rng(seed))
    assert 1.5 < white.sum() * VOXEL_ML < 33
    infarct = stroke(anatomy, rng(seed)) * (1 - anatomy.csf)
    assert 8 < infarct.sum() * VOXEL_ML < 135
    sides = [infarct[side * anatomy.position[0] > 0].sum() for side in (1, -1)]
    assert min(sides) < 0.02 * max(sides)


def test_tissue_sums_to_the_brain(anatomy):
    lesions = {
        "lesion": np.maximum(
            white_matter_lesions(anatomy, rng()), ageing_lesions(anatomy, rng(), 70)
        ),
        "infarct": stroke(anatomy, rng()),
    }
    shares = compose(anatomy, lesions=lesions)
    assert set(shares) <= set(TISSUES)
    np.testing.assert_allclose(sum(shares.values()), anatomy.brain, atol=1e-5)
    assert min(share.min() for share in shares.values()) > -1e-6
