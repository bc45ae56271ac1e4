"""Values of one grid at the voxels of another.

Notable: images are interpolated linearly over tissue only (normalised convolution: Knutsson and
Westin, 1993), so that neither background nor the edge of the field of view darkens what lies next
to it. Labels are interpolated one by one and the largest share wins, so none is invented. Both are
smoothed first along axes that lose resolution.
"""

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.box import bounding_box

_DIGITS = 6
"""Grids agree to a millionth of a voxel; what is finer is noise of 32-bit headers."""

_REACH = 3
"""Standard deviations that smoothing looks out to."""


def resample_image(
    data: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    to_affine: np.ndarray,
    to_shape: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """An image on another grid.

    Args:
        data: [D, H, W] float32.
        mask: [D, H, W] bool, where there is tissue.
        affine: [4, 4], voxel → mm of `data`.
        to_affine: [4, 4], voxel → mm of the result.
        to_shape: Size of the result.

    Returns:
        The image, float32, 0 outside the tissue, and where that is, bool.
    """
    how = _mapping(affine, to_affine)
    if not mask.any():
        return np.zeros(to_shape, np.float32), np.zeros(to_shape, bool)
    box, how = _neighbourhood(mask, how)
    weight = _at(mask[box].astype(np.float32), how, to_shape)
    total = _at(data[box] * mask[box], how, to_shape)
    inside = weight >= 0.5
    return np.divide(total, weight, out=np.zeros_like(total), where=inside), inside


def resample_labels(
    labels: np.ndarray, affine: np.ndarray, to_affine: np.ndarray, to_shape: tuple[int, ...]
) -> np.ndarray:
    """Labels on another grid, of the data type they had; 0 outside the old one."""
    how = _mapping(affine, to_affine)
    result = np.zeros(to_shape, labels.dtype)
    if not labels.any():
        return result
    box, how = _neighbourhood(labels != 0, how)
    best = np.zeros(to_shape, np.float32)
    unlabelled = np.ones(to_shape, np.float32)
    for value in np.unique(labels[box]):
        if value:
            share = _at((labels[box] == value).astype(np.float32), how, to_shape)
            unlabelled -= share
            result[share > best] = value
            np.maximum(best, share, out=best)
    result[unlabelled > best] = 0
    return result


def same_grid(
    affine: np.ndarray, shape: tuple[int, ...], other: np.ndarray, other_shape: tuple[int, ...]
) -> bool:
    """Whether two grids have the same voxels, to a thousandth of one."""
    return shape == other_shape and np.allclose(
        np.linalg.inv(affine) @ other, np.eye(4), rtol=0, atol=1e-3
    )


def _mapping(affine: np.ndarray, to_affine: np.ndarray) -> np.ndarray:
    """[4, 4], voxel of the result → voxel of the source."""
    return np.round(np.linalg.inv(affine) @ to_affine, _DIGITS)


def _neighbourhood(mask: np.ndarray, how: np.ndarray) -> tuple[tuple[slice, ...], np.ndarray]:
    """The box that matters for the True voxels, and the mapping into it; the rest is skipped."""
    margin = np.ceil(_REACH * _sigma(how)).astype(int) + 1
    box = tuple(
        slice(max(0, side.start - wide), side.stop + wide)
        for side, wide in zip(bounding_box(mask), margin.tolist(), strict=True)
    )
    shifted = how.copy()
    shifted[:3, 3] -= [side.start for side in box]
    return box, shifted


def _sigma(how: np.ndarray) -> np.ndarray:
    """[3], smoothing in voxels of the source along its axes, by the rule of scikit-image."""
    return np.maximum(0, (np.linalg.norm(how[:3, :3], axis=1) - 1) / 2)


def _at(data: np.ndarray, how: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation, 0 outside, after the smoothing that the new voxel size asks for."""
    import SimpleITK as sitk  # large; importing the readers must not need it

    sigma = _sigma(how)
    if sigma.any():
        data = ndimage.gaussian_filter(data, sigma, mode="constant", truncate=_REACH)
    # SimpleITK counts axes from the last of an array. Grids of unit voxels make its space ours.
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(how[:3, :3][::-1, ::-1].ravel().tolist())
    transform.SetTranslation(how[:3, 3][::-1].tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize(shape[::-1])
    resampler.SetTransform(transform)
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetNumberOfThreads(1)  # parallelism is over studies
    return sitk.GetArrayFromImage(resampler.Execute(sitk.GetImageFromArray(data)))
