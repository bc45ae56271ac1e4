"""How cells and fluid spread in a phantom: diffusion, and the front of Fisher-KPP."""

import numpy as np
import pytest

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy
from gliomoe.data_shards.phantom.grid import Grid
from gliomoe.data_shards.phantom.tumour.diffusion import (
    diffuse,
    divergence,
    face_diffusivity,
)
from gliomoe.data_shards.phantom.tumour.invasion import invade


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def block(shape: tuple[int, ...], spacing: float = 1.5, wm: np.ndarray | None = None) -> Anatomy:
    """Tissue far from the mid-line: white where `wm` says so, grey elsewhere."""
    wm = np.ones(shape, np.float32) if wm is None else wm.astype(np.float32)
    position = np.zeros((3, *shape), np.float32) + np.reshape([60.0, 0.0, 40.0], (3, 1, 1, 1))
    grid = Grid(shape, spacing, (0.0, 0.0, 0.0))
    none = np.zeros(shape, np.float32)
    return Anatomy(grid, 1 - wm, wm, none, none == 0, position.astype(np.float32))


def slow_divergence(field: np.ndarray, faces: list[np.ndarray], spacing: float) -> np.ndarray:
    """Voxel by voxel: what comes in through each of six faces."""
    out = np.zeros(field.shape)
    for place in np.ndindex(field.shape):
        for axis in range(3):
            for side in (-1, 1):
                other = list(place)
                other[axis] += side
                if 0 <= other[axis] < field.shape[axis]:
                    face = list(place)
                    face[axis] += min(side, 0)
                    gap = field[tuple(other)] - field[place]
                    out[place] += faces[axis][tuple(face)] * gap / spacing**2
    return out


@pytest.fixture
def tiny():
    shape = (4, 5, 3)
    field = rng().random(shape, np.float32)
    faces = [
        rng(axis).random(np.subtract(shape, np.eye(3, dtype=int)[axis]), np.float32)
        for axis in range(3)
    ]
    return field, faces


def test_divergence_is_what_flows_through_six_faces(tiny):
    field, faces = tiny
    ours = divergence(field, faces, spacing=1.7)
    np.testing.assert_allclose(ours, slow_divergence(field, faces, 1.7), rtol=1e-4, atol=1e-6)
    assert ours.sum() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("held", [False, True])
def test_super_steps_follow_small_steps(tiny, held):
    field, faces = tiny
    source = field > 0.8 if held else None
    slow = field.astype(np.float64)
    for _ in range(2000):
        change = divergence(slow, faces, 2.0) * (1 if source is None else ~source)
        slow = slow + 30 / 2000 * change
    fast = diffuse(field, faces, time=30.0, spacing=2.0, source=source)
    assert np.abs(slow - field).max() > 0.2
    np.testing.assert_allclose(fast, slow, atol=0.03)
    if source is None:
        assert fast.sum() == pytest.approx(field.sum(), rel=1e-5)


def test_diffusion_is_slower_across_the_edge_of_white_matter_than_along_it():
    wm = np.zeros((9, 9, 12))
    wm[:, :, :6] = 1
    along, _, across = face_diffusivity(block(wm.shape, wm=wm), white=1.0, grey=0.2)
    assert across[4, 4, 5] < 0.6 * min(along[4, 4, 5], 1)
    assert along[4, 4, 0] == pytest.approx(1, rel=0.05)
    assert along[4, 4, 11] == pytest.approx(0.2, rel=0.05)


def test_front_moves_at_the_speed_of_fisher():
    width, spacing = 3.0, 1.5
    tube = block((90, 5, 5), spacing)
    _, exposure = invade(tube, (4, 2, 2), width, core_ml=80 * 25 * spacing**3 / 1000)
    line = exposure[:, 2, 2]
    speed = 30 * spacing / (line[40] - line[70])
    # The front reaches 2 sqrt(D rho) slowly and from below (Bramson).
    assert 0.88 < speed / (2 * width) < 1.03


def test_growth_follows_white_matter():
    wm = np.zeros((40, 15, 21))
    wm[:, :, 8:13] = 1
    density, _ = invade(block(wm.shape, 2.0, wm), (20, 7, 10), 2.5, core_ml=8.0)
    core = density > 0.5
    assert np.ptp(np.flatnonzero(core.any((1, 2)))) > 1.6 * np.ptp(np.flatnonzero(core.any((0, 1))))
