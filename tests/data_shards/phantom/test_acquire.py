"""Phantom series: slices, k-space, noise, poses, and the way back to the common grid."""

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gliomoe.data_shards.phantom.grid import CENTRE_MM, Grid, brain_grid
from gliomoe.data_shards.phantom.scanner.acquire import acquire
from gliomoe.data_shards.phantom.scanner.body import Body, paint
from gliomoe.data_shards.phantom.scanner.geometry import plan, sample
from gliomoe.data_shards.phantom.scanner.kspace import encode
from gliomoe.data_shards.phantom.scanner.protocols import Acquisition, Pose, cleaned, draw_session
from gliomoe.data_shards.phantom.scanner.regrid import labels_onto, onto_grid
from gliomoe.data_shards.phantom.scanner.tissues import TISSUES, Relaxation

POINT = (22.0, -41.0, 27.0)
"""mm, where the marker is."""


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean_tissues() -> dict[str, Relaxation]:
    return {
        name: Relaxation(t.t1[1], t.t2[1], t.density, t.adc, float(np.mean(t.gadolinium)))
        for name, t in TISSUES.items()
    }


def series(sequence: str = "t1", **settings) -> Acquisition:
    """An ideal series but for what is set."""
    times = {"field": 3.0, "tr": 600.0, "te": 10.0, "ti": None, "gain": 10000.0}
    return Acquisition(sequence, **{**times, **settings})


def distance(grid: Grid, centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Of each voxel from a centre, in radii."""
    parts = zip(grid.points(), centre, radii, strict=True)
    return np.sqrt(sum(((x - c) / r) ** 2 for x, c, r in parts))


def brain_body(spacing: float) -> tuple[Body, np.ndarray]:
    """White matter with ventricles, an infarct and a tumour, and its mask."""
    grid = brain_grid(spacing)

    def ball(centre: tuple[float, ...], *radii: float) -> np.ndarray:
        size = radii if len(radii) == 3 else radii * 3
        far = (distance(grid, centre, size) - 1) * min(size) / spacing
        return np.clip(0.5 - far, 0, 1).astype(np.float32)

    brain = ball(CENTRE_MM, 66, 82, 62)
    parts = {
        "csf": ball((0, -20, 10), 20),
        "infarct": ball((-35, 10, 10), 16),
        "enhancing": ball((35, 0, 20), 18),
    }
    brain_share = {name: part * brain for name, part in parts.items()}
    brain_share["wm"] = brain - sum(brain_share.values())
    return Body(grid, brain_share, np.ones(grid.shape, np.float32)), brain > 0.5


def marker_body(spacing: float = 3.0) -> Body:
    """A bright spot at `POINT` in a head that gives no signal."""
    grid = brain_grid(spacing)
    spot = np.exp(-(distance(grid, POINT, (6.0,) * 3) ** 2) / 2).astype(np.float32)
    margin = 5
    shape = tuple(n + 2 * margin for n in grid.shape)
    whole = Grid(shape, spacing, tuple(o - margin * spacing for o in grid.origin))
    shell = (distance(whole, CENTRE_MM, (80.0, 98.0, 86.0)) < 1).astype(np.float32)
    still = {"wm": np.where(spot > 1e-3, spot, 0), "vessel": np.zeros_like(spot)}
    return Body(grid, still, np.ones_like(spot), head={"skull": shell}, head_grid=whole)


def centroid(image: np.ndarray, affine: np.ndarray) -> np.ndarray:
    weights = image / image.sum()
    voxel = [(weights * index).sum() for index in np.indices(image.shape)]
    return (affine @ [*voxel, 1])[:3]


def turned(pose: Pose, point: np.ndarray, centre: np.ndarray) -> np.ndarray:
    turn = Rotation.from_rotvec(pose.turn, degrees=True)
    return turn.apply(point - centre) + centre + pose.shift


def test_cut_of_k_space_rings_as_gibbs_says():
    edge = np.zeros((512, 2), np.float32)
    edge[128:384] = 1
    cut = encode(edge, 0, 512, kept=0.25)
    # Integral of the sine cardinal: an overshoot of 8.95 %, whatever the cut.
    assert cut.max() == pytest.approx(1.0895, abs=0.006)
    assert cut.min() == pytest.approx(-0.0895, abs=0.006)
    np.testing.assert_allclose(encode(edge, 0, 512), edge, atol=1e-6)


@pytest.mark.parametrize(("count", "kept"), [(60, 1.0), (60, 0.7), (30, 1.0), (31, 1.0)])
def test_k_space_against_the_sum_over_its_lines(count, kept):
    image = rng().standard_normal((60 if count < 31 else 2 * count, 3)).astype(np.float32)
    period, motion, size = 7.0, 0.4, len(image)
    expected = np.zeros((count, 3))
    for line in range(-((count - 1) // 2), (count - 1) // 2 + 1):
        if abs(line) > kept * count / 2:
            continue
        wave = np.exp(-2j * np.pi * line * np.arange(size) / size) @ image / size
        wave *= np.exp(-2j * np.pi * line * motion * np.cos(2 * np.pi * line / period) / count)
        back = np.exp(2j * np.pi * line * np.arange(count) / count)
        expected += (back[:, None] * wave).real
    found = encode(image, 0, count, kept, motion, period)
    if count % 2 == 0:  # the line in the middle has no partner and is left out of the comparison
        lines = np.fft.rfft(found, axis=0)
        lines[-1] = 0
        found = np.fft.irfft(lines, count, axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_ghosts_lie_where_the_period_puts_them():
    image = np.exp(-((np.arange(128) - 40.0) ** 2) / 18).astype(np.float32)[:, None]
    ghost = (encode(image, 0, 128, motion=0.5, period=4) - image)[:, 0] ** 2
    # 128 lines, 4 in a period: 32 voxels to either side; this near the middle of k-space the
    # motion moves edges, so that a ghost is a pair about its place.
    for place in (72, 8):
        near = slice(place - 8, place + 9)
        assert ghost[near].sum() > 0.2 * ghost.sum()
        found = (ghost[near] * np.arange(near.start, near.stop)).sum() / ghost[near].sum()
        assert found == pytest.approx(place, abs=0.3)


@pytest.mark.parametrize("gap", [0.0, 2.5])
@pytest.mark.parametrize("axis", [0, 2])
def test_slices_have_their_width_and_share_the_body(axis, gap):
    grid = Grid((40, 6, 40), 1.0, (0.0, 0.0, 0.0))
    body = Body(grid, {"wm": np.ones(grid.shape, np.float32)}, np.ones(grid.shape, np.float32))
    acquisition = series(thickness=5.0, gap=gap, slice_axis=axis, slice_offset=0.5)
    geometry = plan(acquisition, body)
    middle = geometry.shape[axis] // 2
    response, total = [], []
    for place in range(40):
        plane = np.zeros(grid.shape, np.float32)
        np.moveaxis(plane, axis, 0)[place] = 1
        slices = np.moveaxis(sample(plane, grid, geometry, [1, 1, 1]), axis, 0)
        response.append(slices[middle, 2, 2])
        total.append(slices[:, 2, 2].sum() * 5.0)
    response = np.array(response)
    assert response.sum() == pytest.approx(1, abs=1e-5)
    # Full width at half maximum, between planes.
    above = np.flatnonzero(response > response.max() / 2)
    assert len(above) == pytest.approx(5, abs=1.01)
    assert response.max() == pytest.approx(1 / 5, rel=0.02)
    inner = np.array(total)[8:-8]
    if gap == 0:
        np.testing.assert_allclose(inner, 1, atol=1e-4)
    else:
        assert np.mean(total[8:23]) == pytest.approx(5 / 7.5, abs=0.01)  # two whole periods


def test_noise_is_rician():
    body, brain = brain_body(4.0)
    acquisition = series(snr=8.0, in_plane=4.0, thickness=4.0)
    image = acquire(body, mean_tissues(), acquisition, rng()).image / acquisition.gain
    sigma = 1 / 8
    air = image[~brain & (distance(body.grid, CENTRE_MM, (66, 82, 62)) > 1.2)]
    assert air.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)
    assert air.std() == pytest.approx(sigma * np.sqrt(2 - np.pi / 2), rel=0.02)
    white = image[body.brain["wm"] == 1]
    assert white.std() == pytest.approx(sigma, rel=0.02)
    assert (white**2).mean() == pytest.approx(1 + 2 * sigma**2, rel=0.01)


def test_larger_voxels_have_less_noise():
    body, _ = brain_body(4.0)
    acquisition = series(snr=8.0, in_plane=1.0, thickness=4.0)
    image = acquire(body, mean_tissues(), acquisition, rng()).image / acquisition.gain
    assert image[body.brain["wm"] == 1].std() == pytest.approx(1 / 8 / 4, rel=0.02)


def test_diffusion_map():
    body, brain = brain_body(3.0)
    acquisition = series("adc", tr=6000.0, te=70.0, b=1000.0, snr=40.0, in_plane=2.0, thickness=5.0)
    tissues = mean_tissues()
    adc = onto_grid(acquire(body, tissues, acquisition, rng()), body.grid, brain)

    def inside(name: str) -> float:
        middle = {"csf": (0, -20, 10), "infarct": (-35, 10, 10), "wm": (0, 40, 0)}[name]
        return float(np.median(adc[distance(body.grid, middle, (8.0,) * 3) < 1]))

    assert inside("csf") == pytest.approx(3000, rel=0.05)
    assert inside("wm") == pytest.approx(1000 * TISSUES["wm"].adc, rel=0.05)
    assert inside("infarct") == pytest.approx(1000 * TISSUES["infarct"].adc, rel=0.05)
    assert adc[brain].min() >= 1 and not adc[~brain].any()
    weighted = replace(acquisition, sequence="dwi")
    dwi = onto_grid(acquire(body, tissues, weighted, rng()), body.grid, brain)
    assert np.median(dwi[body.brain["infarct"] == 1]) > 1.5 * np.median(dwi[body.brain["wm"] == 1])


def test_air_has_no_diffusion():
    body, brain = brain_body(4.0)
    acquisition = series("adc", tr=6000.0, te=70.0, b=1000.0, snr=20.0, in_plane=4, thickness=4)
    adc = acquire(body, mean_tissues(), acquisition, rng()).image
    far = distance(body.grid, CENTRE_MM, (66, 82, 62)) > 1.2
    assert (adc[far] == 0).mean() > 0.99


def test_uneven_enhancement_follows_the_concentration():
    body, _ = brain_body(4.0)
    tissues = mean_tissues()
    twice = replace(body, enhancement=np.full(body.grid.shape, 2.0, np.float32))
    strong = tissues["enhancing"]
    doubled = {**tissues, "enhancing": replace(strong, gadolinium=2 * strong.gadolinium)}
    expected = paint(body, series("t1ce"), doubled)
    np.testing.assert_allclose(paint(twice, series("t1ce"), tissues), expected, atol=1e-4)
    tumour = body.brain["enhancing"] > 0.5
    assert expected[tumour].mean() > 1.1 * paint(body, series("t1ce"), tissues)[tumour].mean()
    np.testing.assert_array_equal(
        paint(twice, series("t1"), tissues), paint(body, series("t1"), tissues)
    )


def test_clean_series_is_the_ideal_image():
    body, brain = brain_body(4.0)
    for protocol in "ABC":
        acquisition = cleaned(draw_session(protocol, rng())["t2"])
        image = onto_grid(acquire(body, mean_tissues(), acquisition, rng()), body.grid, brain)
        ideal = acquisition.gain * np.abs(paint(body, acquisition, mean_tissues()))
        np.testing.assert_allclose(image[brain], ideal[brain], atol=0.51)


@pytest.mark.parametrize("sequence", ["t1", "t2", "adc"])
def test_preprocessed_series_lie_on_the_grid(sequence):
    body, brain = brain_body(4.0)
    acquisition = draw_session("B", rng(1))[sequence]
    scan = acquire(body, mean_tissues(), acquisition, rng(2))
    image = onto_grid(scan, body.grid, brain)
    assert image.dtype == np.int16
    np.testing.assert_array_equal(image > 0, brain)
    again = acquire(body, mean_tissues(), acquisition, rng(2))
    np.testing.assert_array_equal(scan.image, again.image)
    other = acquire(body, mean_tissues(), acquisition, rng(3))
    assert (scan.image != other.image).any()


@pytest.mark.parametrize("protocol", "ABC")
def test_thick_slices_come_back_to_their_place(protocol):
    """The tumour lies where it was, whatever the slices: within a fraction of a voxel."""
    body, brain = brain_body(3.0)
    spot = {**body.brain, "wm": np.zeros_like(body.texture)}
    alone = Body(body.grid, {"enhancing": spot["enhancing"]}, body.texture)
    for sequence, drawn in draw_session(protocol, rng(4)).items():
        if sequence == "adc":
            continue
        acquisition = replace(cleaned(drawn), thickness=5.5, gap=0.5, in_plane=drawn.in_plane)
        acquisition = replace(acquisition, slice_offset=0.3, slice_axis=2, phase_axis=0)
        scan = acquire(alone, mean_tissues(), acquisition, rng())
        assert scan.image.shape[2] == pytest.approx(body.grid.shape[2] * 3 / 6, abs=2)
        image = onto_grid(scan, body.grid, brain)
        place = centroid(np.where(image > 1, image, 0), body.grid.affine)
        np.testing.assert_allclose(place, (35, 0, 20), atol=0.4)


def test_same_subject_at_two_spacings():
    acquisition = draw_session("A", rng(5))["t2"]
    images = []
    for spacing in (4.0, 2.0):
        body, brain = brain_body(spacing)
        scan = acquire(body, mean_tissues(), acquisition, rng(6))
        image = onto_grid(scan, body.grid, brain).astype(np.float32)
        images.append(body.grid.resample(image, brain_grid(4.0)))
    inside = (images[0] > 0) & (distance(brain_grid(4.0), CENTRE_MM, (66, 82, 62)) < 0.9)
    ratio = images[1][inside] / images[0][inside]
    assert np.median(ratio) == pytest.approx(1, abs=0.02)
    assert np.corrcoef(images[0][inside], images[1][inside])[0, 1] > 0.97


POSES = [
    (0, "PSR", False),
    (1, "LSA", False),
    (2, "LAS", False),
    (2, "RAS", False),
    (0, "PIR", True),
    (2, "LPS", True),
]


@pytest.mark.parametrize(("axis", "stored", "volume"), POSES)
def test_raw_series_say_where_the_head_lies(axis, stored, volume):
    body = marker_body()
    acquisition = series(
        in_plane=2.0,
        thickness=1.0 if volume else 5.0,
        gap=0.0 if volume else 1.0,
        slice_axis=axis,
        volume=volume,
        slice_offset=0.2,
        stored=stored,
        session=Pose((6.0, -3.0, 5.0), (8.0, -4.0, 6.0)),
        oblique=Pose((3.0, -2.0, 4.0), (2.0, 1.0, -3.0)),
        motion=Pose((1.5, 1.0, -2.0), (1.0, 2.0, -1.5)),
    )
    scan = acquire(body, mean_tissues(), acquisition, rng())
    assert "".join(nib.aff2axcodes(scan.affine)) == stored
    centre = np.array(CENTRE_MM)
    lying = turned(acquisition.session, np.array(POINT), centre)
    moved = turned(acquisition.motion, lying, centre + acquisition.session.shift)
    np.testing.assert_allclose(centroid(scan.image, scan.affine), moved, atol=0.3)
    sizes = nib.affines.voxel_sizes(scan.affine)
    across = [code in {0: "RL", 1: "AP", 2: "SI"}[axis] for code in stored].index(True)
    assert sizes[across] == pytest.approx(3.0 if volume else 6.0)
    # The segmentation goes the same way and keeps its volume.
    seg = np.where(distance(body.grid, POINT, (18.0, 15.0, 20.0)) < 1, 2, 0).astype(np.uint8)
    seg[distance(body.grid, POINT, (12.0, 10.0, 13.0)) < 1] = 4
    labels = labels_onto(scan, seg, body.grid)
    assert labels.shape == scan.image.shape and labels.dtype == np.uint8
    voxel = abs(np.linalg.det(scan.affine[:3, :3]))
    for label in (2, 4):
        ratio = (labels == label).sum() * voxel / ((seg == label).sum() * 27)
        assert ratio == pytest.approx(1, abs=0.12)
    np.testing.assert_allclose(centroid(labels > 0, scan.affine), moved, atol=0.8)


def test_raw_series_hold_the_head_and_its_air():
    body = marker_body(4.0)
    scan = acquire(body, mean_tissues(), series(snr=30.0, in_plane=4.0), rng())
    corner = scan.image[:2].astype(float)
    assert corner.mean() == pytest.approx(10000 / 30 / 2 * np.sqrt(np.pi / 2), rel=1)
    assert (np.array(scan.image.shape) * 4 > [160, 196, 172]).all()
    with pytest.raises(ValueError, match="raw form"):
        moved = replace(series(), session=Pose((5.0, 0.0, 0.0)), volume=False)
        onto_grid(acquire(body, mean_tissues(), moved, rng()), body.grid, np.ones(1, bool))


def test_nothing_to_label():
    body = marker_body(4.0)
    scan = acquire(body, mean_tissues(), series(), rng())
    assert not labels_onto(scan, np.zeros(body.grid.shape, np.uint8), body.grid).any()
