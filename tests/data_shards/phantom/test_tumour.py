"""Phantom tumours: barriers, what they push, and whether their traits can be seen."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gliomoe.data_shards.labels import to_canonical
from gliomoe.data_shards.phantom.anatomy.brain import Anatomy, build_anatomy, draw_head_shape
from gliomoe.data_shards.phantom.composition import compose, label, signal_texture
from gliomoe.data_shards.phantom.grid import MODEL_GRID, Grid, brain_grid
from gliomoe.data_shards.phantom.patients.markers import Glioma
from gliomoe.data_shards.phantom.tumour.diffusion import (
    dura,
)
from gliomoe.data_shards.phantom.tumour.growth import Tumour, grow_tumour
from gliomoe.data_shards.phantom.tumour.invasion import invade
from gliomoe.data_shards.phantom.tumour.mass_effect import displace
from gliomoe.data_shards.phantom.tumour.satellites import DIAMETER_MM, Satellite, paint
from gliomoe.data_shards.phantom.tumour.structure import inside_mm

GLIOMA = Glioma(
    who_type="glioblastoma",
    grade=4,
    idh="wildtype",
    codeletion="intact",
    tert="mutant",
    lobe="frontal",
    cortical=False,
    core_ml=30.0,
    infiltration_mm=2.2,
    enhancement="ring",
    rim_mm=5.0,
    oedema_mm=12.0,
    mismatch=False,
    calcified=False,
    texture=0.08,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def head():
    return draw_head_shape(rng(), age=45)


@pytest.fixture(scope="module")
def anatomy(head):
    return build_anatomy(head, MODEL_GRID)


@pytest.fixture(scope="module")
def grow(head, anatomy):
    """Grow a glioma and compose it at a spacing, in a box around it: tumour, shares, anatomy."""

    def grown(glioma: Glioma, seed: int = 0, spacing: float = 2.0):
        tumour = grow_tumour(glioma, anatomy, rng(seed))
        seen = build_anatomy(head, box_grid(tumour, spacing), tumour.push)
        return tumour, compose(seen, tumour), seen

    return grown


def box_grid(tumour: Tumour, spacing: float) -> Grid:
    """The part of the brain's grid around a tumour, with room for satellites."""
    whole = brain_grid(spacing)
    origin, shape = [], []
    for axis in range(3):
        low = tumour.grid.origin[axis] - 30
        high = tumour.grid.origin[axis] + tumour.grid.spacing * tumour.grid.shape[axis] + 30
        start = max(int((low - whole.origin[axis]) / spacing), 0)
        stop = min(int((high - whole.origin[axis]) / spacing), whole.shape[axis])
        origin.append(whole.origin[axis] + spacing * start)
        shape.append(stop - start)
    return Grid(tuple(shape), spacing, tuple(origin))


def voxel(anatomy: Anatomy, place: tuple[float, float, float]) -> tuple[int, ...]:
    """The voxel nearest to a place in the template."""
    far = ((anatomy.position - np.reshape(place, (3, 1, 1, 1))) ** 2).sum(0)
    return tuple(int(i) for i in np.unravel_index(far.argmin(), far.shape))


def test_cells_stay_in_tissue_and_their_hemisphere(anatomy):
    seed = voxel(anatomy, (42.0, -10.0, 34.0))
    density, _ = invade(anatomy, seed, 2.4, core_ml=25.0)
    assert (density > 0.5).sum() * MODEL_GRID.spacing**3 / 1000 >= 25
    assert density[anatomy.csf > 0.65].max() == 0
    assert density[~anatomy.brain].max() == 0
    assert density[anatomy.position[0] < -4].max() < 0.01
    assert not density[dura(anatomy)].any()


@pytest.mark.parametrize("place", [(10.0, 24.0, 10.0), (12.0, -40.0, 20.0)])
def test_cells_cross_the_corpus_callosum(anatomy, place):
    density, _ = invade(anatomy, voxel(anatomy, place), 3.0, core_ml=40.0)
    core = density > 0.5
    sides = [core[side * anatomy.position[0] > 6].sum() for side in (-1, 1)]
    assert min(sides) > 0.03 * max(sides)


def test_cells_stay_above_the_tentorium(anatomy):
    x, y, z = anatomy.position
    seed = voxel(anatomy, (38.0, -62.0, -4.0))
    density, _ = invade(anatomy, seed, 2.4, core_ml=25.0)
    cerebellum = (y < -50) & (z < -12 - 0.45 * np.abs(x) + 0.3 * (y + 45))
    assert cerebellum.sum() > 1000 and density[cerebellum].max() < 0.01


def jacobian(push: np.ndarray) -> np.ndarray:
    source = MODEL_GRID.points() - push
    slopes = np.stack([np.stack(np.gradient(axis, MODEL_GRID.spacing)) for axis in source])
    return np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)))


@pytest.mark.parametrize("seed", range(3))
def test_mass_effect_does_not_fold(anatomy, seed):
    glioma = replace(GLIOMA, core_ml=90.0, oedema_mm=25.0, infiltration_mm=1.8)
    push = grow_tumour(glioma, anatomy, rng(seed)).push
    assert jacobian(push).min() > 0
    assert 2 < np.sqrt((push**2).sum(0)).max() < 20


def test_mass_effect_shifts_the_ventricles_away(head, anatomy):
    depth = inside_mm(anatomy.brain, MODEL_GRID.spacing)
    away = np.sqrt(((MODEL_GRID.points() - np.reshape([38, 5, 25], (3, 1, 1, 1))) ** 2).sum(0))
    core = (away < 20) & anatomy.brain
    none = np.zeros_like(depth)

    def ventricles(push):
        seen = build_anatomy(head, MODEL_GRID, push)
        x, y, z = seen.position
        inner = seen.csf * ((np.abs(x) < 22) & (y > -35) & (y < 30) & (z > 0) & (z < 30))
        return (inner * MODEL_GRID.points()[0]).sum() / inner.sum(), seen.brain.sum()

    before, brain = ventricles(None)
    after, brain_after = ventricles(displace(core, none, depth, 0.3))
    assert 0.5 < before - after < 12  # mm, away from the tumour on the right
    assert brain_after == pytest.approx(brain, rel=0.01)  # the skull does not give way
    halo = ((away < 30) & anatomy.brain).astype(np.float32)
    largest = [
        np.abs(displace(mask, fluid, depth, 0.3)).max()
        for mask, fluid in ((core, none), (core, halo), (halo > 0, none))
    ]
    assert largest[0] < largest[1] < largest[2]  # oedema adds, but less than core would


@pytest.mark.parametrize("spacing", [2.0, 5.0])
@pytest.mark.parametrize("enhancement", ["ring", "patchy", "none"])
def test_shares_sum_to_the_brain(grow, enhancement, spacing):
    glioma = replace(
        GLIOMA, enhancement=enhancement, satellites=2, resected=True, calcified=True, oedema_mm=9.0
    )
    _, shares, seen = grow(glioma, spacing=spacing)
    np.testing.assert_allclose(sum(shares.values()), seen.gm + seen.wm + seen.csf, atol=2e-5)
    assert min(share.min() for share in shares.values()) > -1e-5


@pytest.mark.parametrize("core_ml", [10.0, 40.0, 100.0])
def test_core_has_the_volume_asked_for(grow, core_ml):
    for seed in range(2):
        _, shares, seen = grow(replace(GLIOMA, core_ml=core_ml), seed, spacing=3.0)
        volume = np.isin(label(shares), (1, 4)).sum() * seen.grid.spacing**3 / 1000
        assert volume == pytest.approx(core_ml, rel=0.3)


def test_a_tumour_is_the_same_at_every_spacing(grow):
    volumes = []
    for spacing in (1.5, 3.0):
        _, shares, seen = grow(GLIOMA, spacing=spacing)
        seg = label(shares)
        volumes.append([(seg == part).sum() * spacing**3 for part in (1, 2, 4)])
        assert seen.grid.spacing == spacing
    np.testing.assert_allclose(volumes[0], volumes[1], rtol=0.25)


def test_conventions_of_labels(grow):
    _, shares, _ = grow(GLIOMA)
    before, since = label(shares), label(shares, "brats2023")
    assert set(np.unique(before)) == {0, 1, 2, 4} and set(np.unique(since)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(
        to_canonical(before, "brats2021"), to_canonical(since, "brats2023")
    )


def test_resection_leaves_a_cavity_that_opens_to_the_surface(grow):
    whole = label(grow(GLIOMA)[1], "brats2023")
    for seed, reach in enumerate((12.0, 0.0)):
        _, shares, seen = grow(replace(GLIOMA, resected=True, oedema_mm=reach), seed)
        with pytest.raises(ValueError, match="brats2021"):
            label(shares)
        seg = label(shares, "brats2023")
        assert set(np.unique(seg)) == {0, 1, 2, 3, 4}
        cavity, residual = seg == 4, np.isin(seg, (1, 3))
        ml = seen.grid.spacing**3 / 1000
        assert 0.5 * GLIOMA.core_ml < cavity.sum() * ml < 1.6 * GLIOMA.core_ml
        assert 0 < residual.sum() < 0.5 * np.isin(whole, (1, 3)).sum()
        surface = ndimage.distance_transform_edt(np.pad(seen.brain, 1))[1:-1, 1:-1, 1:-1]
        assert surface[cavity].min() <= 2
        parts, count = ndimage.label(cavity)
        assert np.bincount(parts.ravel())[1:].max() > 0.9 * cavity.sum() and count >= 1


def test_a_focus_has_its_volume():
    grid = Grid((14, 15, 16), 1.0, (-7.0, -7.3, -7.9))
    for diameter in (3.0, 4.2, 5.0):
        box, share = paint(Satellite((0.4, 0.1, -0.2), diameter), grid)
        assert share.sum() == pytest.approx(np.pi / 6 * diameter**3, rel=0.03)
        whole = np.zeros(grid.shape)
        whole[box] = share
        centre = [(axis * whole).sum() / whole.sum() for axis in grid.points()]
        np.testing.assert_allclose(centre, (0.4, 0.1, -0.2), atol=0.03)


@pytest.mark.parametrize("enhancement", ["ring", "none"])
def test_satellites_are_components_of_their_own(grow, enhancement):
    glioma = replace(GLIOMA, enhancement=enhancement, core_ml=15.0)
    tumour, shares, _ = grow(replace(glioma, satellites=3), spacing=1.0)
    without = label(grow(glioma, spacing=1.0)[1])
    seg = label(shares)
    assert len(tumour.satellites) == 3
    core, before = np.isin(seg, (1, 4)), np.isin(without, (1, 4))
    parts, count = ndimage.label(core)
    assert count == ndimage.label(before)[1] + 3
    volumes = np.bincount(parts[core & ~before])[1:]
    diameters = np.cbrt(6 / np.pi * volumes[volumes > 0])
    assert len(diameters) == 3
    assert DIAMETER_MM[0] - 0.8 < diameters.min() and diameters.max() < DIAMETER_MM[1] + 0.8
    assert set(np.unique(seg[core & ~before])) == ({1} if enhancement == "none" else {4})
    away = ndimage.distance_transform_edt(~before)
    assert away[core & ~before].min() > 6 and away[core & ~before].max() < 45


def rim_thickness(seg: np.ndarray, spacing: float) -> float:
    """Mean distance from the outer surface of the enhancing rim to what lies within."""
    core = np.isin(seg, (1, 4))
    outer = (seg == 4) & ~ndimage.binary_erosion(core)
    return float(ndimage.distance_transform_edt(seg != 1)[outer].mean() * spacing)


def test_rim_is_as_thick_as_the_trait(grow):
    rims = np.linspace(3, 9, 7)
    found = [
        rim_thickness(label(grow(replace(GLIOMA, rim_mm=rim, core_ml=45), seed)[1]), 2.0)
        for seed, rim in enumerate(rims)
    ]
    assert np.corrcoef(rims, found)[0, 1] > 0.8
    assert np.mean(found) == pytest.approx(rims.mean(), rel=0.3)


def test_mismatch_lies_inside_a_rim(grow):
    glioma = replace(GLIOMA, enhancement="none", mismatch=True, oedema_mm=4.0)
    tumour, _, _ = grow(glioma)
    depth = inside_mm(tumour.core > 0.5, tumour.grid.spacing)
    dark = tumour.parts["mismatch"]
    assert dark[depth > 7].min() > 0.9
    assert dark[(depth > 0) & (depth < 2)].max() < 0.1
    plain, _, _ = grow(replace(glioma, mismatch=False))
    assert not plain.parts["mismatch"].any()


def test_calcification_is_large_enough_to_measure(grow):
    for seed in range(2):
        _, shares, seen = grow(replace(GLIOMA, enhancement="none", calcified=True), seed)
        assert (shares["calcification"] > 0.5).sum() * seen.grid.spacing**3 / 1000 > 0.5
    assert not grow(GLIOMA)[1]["calcification"].any()


def test_cortical_tumours_lie_at_the_surface(anatomy):
    depth = inside_mm(anatomy.brain, MODEL_GRID.spacing)

    def mean_depth(cortical: bool) -> float:
        found = []
        for seed in range(3):
            tumour = grow_tumour(replace(GLIOMA, cortical=cortical, core_ml=20), anatomy, rng(seed))
            below = MODEL_GRID.resample(depth, tumour.grid)
            found.append(below[tumour.core > 0.5].mean())
        return float(np.mean(found))

    assert mean_depth(True) < mean_depth(False) - 4


def test_lobes_are_apart(anatomy):
    centres = {
        "frontal": (30, 32, 26),
        "temporal": (48, -16, -16),
        "parietal": (32, -48, 42),
        "occipital": (26, -82, 8),
        "insula": (38, 4, 2),
    }
    right = 0
    for lobe in centres:
        for seed in range(2):
            tumour = grow_tumour(replace(GLIOMA, lobe=lobe, core_ml=20), anatomy, rng(seed))
            place = MODEL_GRID.resample(anatomy.position, tumour.grid)[:, tumour.core > 0.5]
            x, y, z = place.mean(1)
            far = {
                name: np.hypot(np.hypot(abs(x) - a, y - b), z - c)
                for name, (a, b, c) in centres.items()
            }
            right += min(far, key=far.get) == lobe
    assert right >= 8  # of 10


def test_infiltration_softens_the_border(grow):
    for seed in range(2):
        widths = []
        for width in (1.9, 3.5):
            glioma = replace(GLIOMA, infiltration_mm=width, oedema_mm=0.0, enhancement="none")
            core = grow(glioma, seed)[0].core
            soft = ((core > 0.05) & (core < 0.95)).sum()
            widths.append(soft / (core > 0.5).sum() ** (2 / 3))
        assert widths[1] > 1.2 * widths[0]


def test_texture_and_oedema_grow_with_their_traits(grow):
    spreads, volumes = [], []
    for texture, reach in ((0.04, 3.0), (0.08, 12.0), (0.16, 24.0)):
        tumour, shares, seen = grow(replace(GLIOMA, texture=texture, oedema_mm=reach))
        seg = label(shares)
        spreads.append(signal_texture(tumour, seen.grid)[np.isin(seg, (1, 4))].std())
        volumes.append((seg == 2).sum())
    assert spreads[1] > 1.5 * spreads[0] and spreads[2] > 1.5 * spreads[1]
    assert volumes[1] > 1.3 * volumes[0] and volumes[2] > 1.3 * volumes[1]


def test_oedema_spares_cortex_and_fades(grow):
    _, shares, seen = grow(replace(GLIOMA, oedema_mm=24.0))
    core = sum(shares[name] for name in ("necrosis", "enhancing", "solid"))
    around = (core < 0.02) & (ndimage.distance_transform_edt(core < 0.5) < 6)
    white, grey = (around & (tissue > 0.8) for tissue in (seen.wm, seen.gm))
    assert shares["oedema"][white].mean() > 1.5 * shares["oedema"][grey].mean()
    wet = shares["oedema"][shares["oedema"] > 0.02]
    assert ((wet > 0.1) & (wet < 0.35)).mean() > 0.1  # infiltration that nobody draws


def test_growth_is_repeatable(anatomy):
    first, second = (grow_tumour(GLIOMA, anatomy, rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first.core, second.core)
    np.testing.assert_array_equal(first.push, second.push)
    for name, part in first.parts.items():
        np.testing.assert_array_equal(part, second.parts[name])
