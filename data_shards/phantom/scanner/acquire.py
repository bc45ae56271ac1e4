"""From tissue to a native series: contrast, coil, slices, k-space, noise.

The noise is Rician: complex Gaussian noise, of which the magnitude is taken (Gudbjartsson and
Patz, MRM 1995). Signal-to-noise is that of white matter in a voxel as drawn; where the body's
spacing makes voxels larger, it grows as if that many voxels had been averaged.
"""

from dataclasses import dataclass

import numpy as np

from gliomoe.data_shards.phantom.grid import CENTRE_MM, WARP_GRID, Grid, smooth_noise
from gliomoe.data_shards.phantom.scanner.body import Body, paint
from gliomoe.data_shards.phantom.scanner.geometry import (
    Geometry,
    plan,
    sample,
    samples_per_voxel,
)
from gliomoe.data_shards.phantom.scanner.kspace import encode
from gliomoe.data_shards.phantom.scanner.protocols import Acquisition
from gliomoe.data_shards.phantom.scanner.tissues import Relaxation

_BIAS_MM = 36.0
"""Smoothness of the receive field."""
_DOME_MM = 60.0
"""Width of the bright middle that the transmit field makes."""
_LEAST_ADC_SIGNAL = 4.0
"""Signal at b = 0, in standard deviations of the noise, below which scanners give no ADC."""
_DARK = 0.02
"""The same of white matter's signal, without noise."""
_MOST_ADC = 4.0
"""10^-3 mm2/s; more is noise."""
_DIRECTIONS = 3
"""Of diffusion weighting, averaged to the trace."""
_WHITEST = 32767


@dataclass(frozen=True)
class Scan:
    """One series as it comes from the scanner."""

    image: np.ndarray
    """[D, H, W] int16 in stored order: gain times signal, or 10^-6 mm2/s of an ADC map."""
    geometry: Geometry
    """Where its voxels lie, also in the body."""

    @property
    def affine(self) -> np.ndarray:
        """[4, 4] voxel → world, mm."""
        return self.geometry.stored_affine()


def acquire(
    body: Body,
    relaxation: dict[str, Relaxation],
    acquisition: Acquisition,
    rng: np.random.Generator,
) -> Scan:
    """One series of a body.

    With a head it lies as the patient did, in stored order; without one its axes are the body's.

    Args:
        body: What is scanned.
        relaxation: Tissue → its relaxation, of `draw_relaxation`.
        acquisition: How it is scanned.
        rng: Source of bias field and noise.
    """
    geometry = plan(acquisition, body)
    coil = _coil(acquisition, body.whole_grid, rng)
    sigma = _noise(acquisition, geometry, body.grid)

    def magnitude(b: float) -> np.ndarray:
        image = paint(body, acquisition, relaxation, b)
        image *= coil
        image = _encode(image, body.whole_grid, geometry, acquisition)
        return _add_noise(image, sigma / np.sqrt(_DIRECTIONS) if b else sigma, rng)

    if acquisition.sequence == "adc":
        least = max(_LEAST_ADC_SIGNAL * sigma, _DARK)
        image = _diffusion(magnitude(0.0), magnitude(acquisition.b), acquisition.b, least)
    else:
        image = magnitude(acquisition.b)
        image *= np.float32(acquisition.gain)
    stored = np.minimum(np.rint(image, image), _WHITEST).astype(np.int16)
    return Scan(geometry.store(stored), geometry)


def _encode(
    image: np.ndarray, grid: Grid, geometry: Geometry, acquisition: Acquisition
) -> np.ndarray:
    """An ideal image in the voxels of a series, with ringing and ghosts."""
    finer = samples_per_voxel(geometry, grid)
    image = sample(image, grid, geometry, finer)
    for axis in range(3):
        count = geometry.shape[axis]
        kept, motion = 1.0, 0.0
        if axis == acquisition.phase_axis:
            kept = acquisition.phase_resolution
            motion = acquisition.ghost / geometry.spacing[axis]
        if finer[axis] > 1 or kept < 1 or motion > 0:
            image = encode(image, axis, count, kept, motion, acquisition.ghost_period)
    return image


def _coil(acquisition: Acquisition, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Factor of the signal by receive and transmit field, [D, H, W] float32."""
    receive = np.exp(np.float32(acquisition.bias) * smooth_noise(rng, _BIAS_MM, grid=WARP_GRID))
    far = sum(
        (place - np.float32(centre)) ** 2
        for place, centre in zip(WARP_GRID.points(), CENTRE_MM, strict=True)
    )
    dome = np.exp(-far / np.float32(2 * _DOME_MM**2)) - np.float32(0.5)
    receive *= 1 + np.float32(acquisition.transmit) * dome
    return WARP_GRID.resample(receive, grid)


def _noise(acquisition: Acquisition, geometry: Geometry, grid: Grid) -> float:
    """Standard deviation of the noise in each of the two channels, of white matter's signal."""
    if not np.isfinite(acquisition.snr):
        return 0.0
    drawn = acquisition.in_plane**2 * acquisition.thickness
    plane = [v for axis, v in enumerate(geometry.spacing) if axis != geometry.slice_axis]
    voxel = float(np.prod(plane)) * (geometry.thickness or grid.spacing)
    return float(np.sqrt(drawn / voxel) / acquisition.snr)


def _add_noise(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of an image with complex noise; changes the image."""
    if sigma == 0:
        return np.abs(image, image)
    noise = rng.standard_normal(image.shape, np.float32)
    noise *= np.float32(sigma)
    image += noise
    rng.standard_normal(dtype=np.float32, out=noise)
    noise *= np.float32(sigma)
    return np.hypot(image, noise, image)


def _diffusion(plain: np.ndarray, weighted: np.ndarray, b: float, least: float) -> np.ndarray:
    """ADC in 10^-6 mm2/s of two magnitude images, 0 where the plain one is below `least`."""
    ratio = np.maximum(plain, 1e-6) / np.maximum(weighted, 1e-6)
    adc = np.clip(np.log(ratio, ratio) / np.float32(b), 0, np.float32(_MOST_ADC / 1000))
    return np.where(plain > least, adc * np.float32(1e6), 0)
