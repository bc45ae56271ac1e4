"""Frames keep codes exactly and intensities to half a step."""

import numpy as np
import pytest

from gliomoe.data_shards.format.codec import Frame, encode, quantise
from gliomoe.data_shards.intensity import CEILING, FLOOR, normalise, robust_range


@pytest.mark.parametrize("shape", [(1, 5, 3), (33, 64, 70), (70, 20, 96)])
def test_any_crop_of_a_frame(shape):
    rng = np.random.default_rng(0)
    voxels = rng.integers(-3000, 3000, shape).astype(np.int16)
    content = b"x" * 7 + encode(voxels)
    frame = Frame(memoryview(content)[7:])
    assert (frame.shape, frame.dtype) == (shape, np.int16)
    for _ in range(10):
        start = [int(rng.integers(0, n)) for n in shape]
        stop = [int(rng.integers(a, n + 1)) for a, n in zip(start, shape, strict=True)]
        expected = voxels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
        out = np.empty(expected.shape, np.int16)
        frame.read_into(out, tuple(start), tuple(stop))
        np.testing.assert_array_equal(out, expected)


def test_same_voxels_same_bytes():
    voxels = np.random.default_rng(1).integers(0, 5, (40, 70, 33)).astype(np.uint8)
    assert encode(voxels) == encode(np.asfortranarray(voxels))


@pytest.mark.parametrize(
    ("values", "exact"),
    [
        (np.arange(2000.0), True),
        (np.arange(65_000.0), True),
        (np.arange(-40_000.0, 20_000.0), True),
        (np.linspace(0, 1, 5000), False),
        (np.linspace(-0.3, 4.8, 5000), False),
        (np.append(np.linspace(0, 1, 5000), 1e6), False),
        (np.arange(0.0, 100_000.0), False),
    ],
)
def test_quantisation_error_is_half_a_step_and_zero_is_exact(values, exact):
    volume = np.resize(values, (1, 1, len(values))).astype(np.float32)
    volume[0, 0, 0] = 0
    stored = quantise(volume, *robust_range(volume))
    back = stored.codes.astype(np.float64) * stored.scale + stored.offset
    step = 0.0 if exact else stored.scale
    assert np.abs(back - volume).max() <= 0.5 * step * (1 + 1e-3)
    assert back[0, 0, 0] == 0
    assert stored.background == stored.codes[0, 0, 0]


def test_normalised_range():
    volume = np.append(np.zeros(50), np.linspace(-1, 9, 2000)).astype(np.float32)[None, None]
    volume[0, 0, -1] = 500
    low, high = robust_range(volume)
    stored = quantise(volume, low, high)
    out = np.empty_like(volume)
    normalise(stored.codes, stored.scale, stored.offset, low, high, out)
    tissue = stored.codes != stored.background
    expected = np.clip((volume - low) / (high - low), FLOOR, CEILING)
    np.testing.assert_allclose(
        out[tissue], expected[tissue], atol=0.51 * stored.scale / (high - low)
    )
    assert (out[~tissue] == 0).all() and (out[tissue] >= FLOOR).all() and out.max() == CEILING
