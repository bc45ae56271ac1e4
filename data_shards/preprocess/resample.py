"""Values of one grid at the voxels of another.

Notable: images are interpolated linearly over tissue only (normalised convolution: Knutsson and
Westin, 1993), so that neither background nor the edge of the field of view darkens what lies next
to it. Labels are interpolated one by one and the largest share wins, so none is invented. Both are
smoothed first along axes that lose resolution.
"""

import numpy as np
from scipy import ndimage

_DIGITS = 6
"""Grids agree to a millionth of a voxel; what is finer is noise of 32-bit headers."""


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
    weight = _at(mask.astype(np.float32), how, to_shape)
    total = _at(data * mask, how, to_shape)
    inside = weight >= 0.5
    return np.divide(total, weight, out=np.zeros_like(total), where=inside), inside


def resample_labels(
    labels: np.ndarray, affine: np.ndarray, to_affine: np.ndarray, to_shape: tuple[int, ...]
) -> np.ndarray:
    """Labels on another grid, of the data type they had; 0 outside the old one."""
    how = _mapping(affine, to_affine)
    result = np.zeros(to_shape, labels.dtype)
    best = np.zeros(to_shape, np.float32)
    values = [value for value in np.unique(labels) if value]
    share_left = np.ones(to_shape, np.float32)
    for value in values:
        share = _at((labels == value).astype(np.float32), how, to_shape)
        share_left -= share
        result[share > best] = value
        np.maximum(best, share, out=best)
    result[share_left > best] = 0
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


def _at(data: np.ndarray, how: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation, 0 outside, after the smoothing that the new voxel size asks for."""
    matrix, shift = how[:3, :3], how[:3, 3]
    steps = np.linalg.norm(matrix, axis=1)
    sigma = np.maximum(0, (steps - 1) / 2)  # the rule of scikit-image
    if sigma.any():
        data = ndimage.gaussian_filter(data, sigma, mode="constant", truncate=3)
    straight = np.array_equal(matrix, np.diag(np.diagonal(matrix)))
    return ndimage.affine_transform(
        data,
        np.diagonal(matrix) if straight else matrix,
        shift,
        shape,
        order=1,
        mode="grid-constant",
        prefilter=False,
    )
