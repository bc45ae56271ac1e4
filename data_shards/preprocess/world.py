"""Coarse copies of series on grids along R, A, S in mm, as SimpleITK images.

Notable: a copy's axes, origin and spacing are those of our world, so that transforms found between
copies are in RAS mm and hold for series of any orientation, shear included.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from gliomoe.data_shards.preprocess.case import Series
from gliomoe.data_shards.preprocess.resample import resample_image

if TYPE_CHECKING:
    import SimpleITK as sitk


@contextmanager
def one_thread() -> Iterator[None]:
    """While it lasts, SimpleITK works with one thread; also a decorator.

    The number of threads that an object is given does not reach the parts that it is made of, and
    sums over threads differ in their last digits from run to run.
    """
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def world_grid(series: Series, spacing: float) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine and size of the grid along R, A, S that covers a series.

    Args:
        series: Any.
        spacing: Voxel size in mm.
    """
    ends = np.array(series.data.shape) - 0.5
    corners = np.array(list(itertools.product(*[(-0.5, end) for end in ends])))
    places = corners @ series.affine[:3, :3].T + series.affine[:3, 3]
    low, high = places.min(0), places.max(0)
    shape = np.maximum(2, np.ceil((high - low) / spacing - 1e-3)).astype(int)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = (low + high) / 2 - (shape - 1) / 2 * spacing
    return affine, tuple(shape.tolist())


def coarse(series: Series, spacing: float) -> Series:
    """A series on its `world_grid`; its mask is where it has voxels."""
    affine, shape = world_grid(series, spacing)
    everywhere = np.ones(series.data.shape, bool)
    data, inside = resample_image(series.data, everywhere, series.affine, affine, shape)
    return Series(data, affine, inside)


def to_sitk(array: np.ndarray, affine: np.ndarray) -> "sitk.Image":
    """An array on a grid along R, A, S as an image whose axes are x, y, z.

    Args:
        array: [D, H, W] float32, uint8 or bool.
        affine: [4, 4], diagonal but for the origin.
    """
    import SimpleITK as sitk  # large; importing the readers must not need it

    if array.dtype == bool:
        array = array.astype(np.uint8)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(np.diag(affine)[:3].tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def from_sitk(image: "sitk.Image") -> np.ndarray:
    """The voxels of an image as [D, H, W]."""
    import SimpleITK as sitk

    return np.ascontiguousarray(sitk.GetArrayFromImage(image).transpose(2, 1, 0))
