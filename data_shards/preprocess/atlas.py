"""The brain of a head by a template: an affine fit, then what intensities say of its edge.

Notable: the fit is by mutual information with a model head, so that any contrast will do; it
begins at guesses around the top of the head, because neck and field of view misplace its centre.
"""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.box import bounding_box
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.preprocess.background import tissue_mask
from gliomoe.data_shards.preprocess.case import Series
from gliomoe.data_shards.preprocess.resample import resample_image
from gliomoe.data_shards.preprocess.template import CENTRE, TOP, head_template
from gliomoe.data_shards.preprocess.world import coarse, one_thread, to_sitk

if TYPE_CHECKING:
    import SimpleITK as sitk

_BINS = 32
_BRIGHT = 98
"""Percentile of the head at which intensities are cut, so that fat does not take all bins."""

_DIGITS = 9
"""Decimals of the fit that are kept; what is finer is noise of the arithmetic."""

_UP = (-30.0, -15.0, 0.0, 15.0, 30.0)
_FORWARD = (-15.0, 0.0, 15.0)
_NOD = (-0.25, 0.0, 0.25)
"""Guesses around the one by the top of the head: mm, mm, radians."""

_TRIED = 3
"""Best guesses that are followed up."""

_SHARE = 0.3
"""Share of the voxels that are compared; twice that on the coarser grid."""

_NO_NECK_MM = 110.0
"""Below the top of the head; what lies between is head and no neck."""

_EDGE_GRID = 2.0
"""mm, voxel size at which the edge is looked for."""

_EDGE_MM, _OUT_MM = 8.0, 5.0
"""How far inwards and outwards the edge may lie from where the fit puts it."""

_FIELD_MM = 20.0
"""Smoothness of the brain's own brightness."""

_DARK = (0.5, 0.65)
"""Shares of the brain's brightness below which is skull, inside and outside of the fit."""

_FAT = 1.4
"""Share above which is fat or marrow, outside of the fit."""

_OPENING_MM = 4.0
_CLOSING_MM = 8.0


def brain_mask(head: Series, spacing: float) -> Series:
    """Where the brain is.

    Args:
        head: A series that shows the brain with its skull, in any contrast.
        spacing: Voxel size in mm at which the template is fitted.

    Returns:
        A series whose data are the mask, [D, H, W] bool, on a grid of 2 mm along R, A, S.

    Raises:
        DataError: If the template finds no place in the image.
    """
    fit = _fit(head, spacing)
    image = coarse(head, _EDGE_GRID)
    template = head_template(spacing)
    placed = fit @ template.image.affine
    share, _ = resample_image(
        template.brain, np.ones(template.brain.shape, bool), placed, image.affine, image.data.shape
    )
    fitted = share > 0.5
    if not ndimage.binary_erosion(fitted, iterations=round(_EDGE_MM / _EDGE_GRID) + 1).any():
        raise DataError("the brain lies outside the image; see --brain.method")
    mask = _refine(image.data, fitted)
    return Series(mask & (image.mask if image.mask is not None else True), image.affine)


@one_thread()
def _fit(head: Series, spacing: float) -> np.ndarray:
    """[4, 4], from a place in the template to the one in the head, mm."""
    rough = _Pair(head, 2 * spacing)
    scored: list[tuple[float, int, sitk.Similarity3DTransform]] = []
    for guess in _guesses(rough):
        if (match := rough.match(guess)) is not None:
            scored.append((match, len(scored), guess))
    if not scored:
        raise DataError("no place for a brain in the image; see --brain.method")
    followed = []
    for _, number, guess in sorted(scored)[:_TRIED]:
        match = rough.follow(guess, step=4.0, least=0.05, steps=60, share=2 * _SHARE)
        if match is not None:
            followed.append((match, number, guess))
    affine = _as_affine(min(followed)[2]) if followed else None
    fine = _Pair(head, spacing)
    if affine is None or fine.follow(affine, 2.0, least=0.02, steps=80, share=_SHARE) is None:
        raise DataError("the fit of the brain went astray; see --brain.method")
    turn = np.array(affine.GetMatrix()).reshape(3, 3)
    centre = np.array(affine.GetCenter())
    fit = np.eye(4)
    fit[:3, :3] = turn
    fit[:3, 3] = np.array(affine.GetTranslation()) + centre - turn @ centre
    return np.round(fit, _DIGITS)


class _Pair:
    """Template and head at one voxel size, ready to be compared."""

    def __init__(self, head: Series, spacing: float) -> None:
        self.template = head_template(spacing)
        copy = coarse(head, spacing)
        self.tissue = tissue_mask(copy.data)
        if not self.tissue.any():
            raise DataError("no tissue in the image; leave it out")
        self.affine = copy.affine
        bright = np.percentile(copy.data[self.tissue], _BRIGHT)
        image = self.template.image
        self.fixed = to_sitk(image.data, image.affine)
        self.moving = to_sitk(np.minimum(copy.data, np.float32(bright)), copy.affine)

    def match(self, transform: "sitk.Transform") -> float | None:
        """Minus the mutual information, None where the two do not meet."""
        method = self._method(_SHARE)
        method.SetInitialTransform(transform)
        try:
            return float(method.MetricEvaluate(self.fixed, self.moving))
        except RuntimeError as error:
            if "samples" in str(error):
                return None
            raise

    def follow(
        self, transform: "sitk.Transform", step: float, least: float, steps: int, share: float
    ) -> float | None:
        """Improve a transform in place; minus the mutual information, None if it went astray."""
        method = self._method(share)
        method.SetInitialTransform(transform, inPlace=True)
        method.SetOptimizerAsRegularStepGradientDescent(
            step, least, steps, gradientMagnitudeTolerance=1e-6
        )
        method.SetOptimizerScalesFromPhysicalShift()
        try:
            method.Execute(self.fixed, self.moving)
        except RuntimeError as error:
            if "samples" in str(error):
                return None
            raise
        return float(method.GetMetricValue())

    def _method(self, share: float) -> "sitk.ImageRegistrationMethod":
        """What comparison and search have in common."""
        import SimpleITK as sitk

        method = sitk.ImageRegistrationMethod()
        method.SetInterpolator(sitk.sitkLinear)
        method.SetMetricAsMattesMutualInformation(_BINS)
        method.SetMetricSamplingStrategy(method.REGULAR)
        method.SetMetricSamplingPercentage(share, 1)
        method.SetMetricFixedMask(to_sitk(self.template.compared, self.template.image.affine))
        return method


def _guesses(pair: _Pair) -> Iterator["sitk.Similarity3DTransform"]:
    """Where the head may be, around the place that its top suggests."""
    import SimpleITK as sitk

    places = np.argwhere(pair.tissue) @ pair.affine[:3, :3].T + pair.affine[:3, 3]
    top = np.percentile(places[:, 2], 99.9)
    crown = places[places[:, 2] > top - _NO_NECK_MM]
    middle = np.percentile(crown[:, :2], (1, 99), axis=0).mean(0)
    shift = np.array([*(middle - CENTRE[:2]), top - TOP])
    for up, forward, nod in itertools.product(_UP, _FORWARD, _NOD):
        guess = sitk.Similarity3DTransform()
        guess.SetCenter(CENTRE)
        guess.SetRotation((1, 0, 0), nod)
        guess.SetTranslation((shift + (0, forward, up)).tolist())
        yield guess


def _as_affine(similarity: "sitk.Similarity3DTransform") -> "sitk.AffineTransform":
    """The same map with more to vary."""
    import SimpleITK as sitk

    affine = sitk.AffineTransform(3)
    affine.SetCenter(similarity.GetCenter())
    affine.SetMatrix(similarity.GetMatrix())
    affine.SetTranslation(similarity.GetTranslation())
    return affine


def _refine(data: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """The brain, [D, H, W] bool.

    Args:
        data: [D, H, W] float32, at `_EDGE_GRID`.
        fitted: [D, H, W] bool, the template's brain.
    """
    reach = round(_CLOSING_MM / _EDGE_GRID) + 1
    near = tuple(
        slice(max(0, side.start - reach), side.stop + reach) for side in bounding_box(fitted)
    )
    brain = np.zeros_like(fitted)
    brain[near] = _edge(data[near], fitted[near])
    return brain


def _edge(data: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """The brain between a core that is surely inside and a shell that is surely outside."""
    edt = ndimage.distance_transform_edt
    depth = np.where(fitted, edt(fitted), -edt(~fitted)) * _EDGE_GRID
    core = depth > _EDGE_MM
    # Brightness of the brain at any place, from the core outwards, so that no bias field matters.
    sigma = _FIELD_MM / _EDGE_GRID
    weight = ndimage.gaussian_filter(core.astype(np.float32), sigma)
    level = ndimage.gaussian_filter(np.where(core, data, 0), sigma) / np.maximum(weight, 1e-6)
    inside = (depth > 0) & (data > _DARK[0] * level)
    beside = (depth > -_OUT_MM) & (data > _DARK[1] * level) & (data < _FAT * level)
    opened = ndimage.binary_opening(core | inside | beside, _ball(_OPENING_MM)) | core
    labels, count = ndimage.label(opened)
    if count > 1:
        opened = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    # By distances, which is closing with a ball, and the image's own edge is no edge of the brain.
    reach = round(_CLOSING_MM / _EDGE_GRID)
    padded = np.pad(opened, reach, mode="edge")
    closed = edt(edt(~padded) <= reach) > reach
    inner = (slice(reach, -reach),) * 3
    brain = closed[inner] & (depth > -_OUT_MM)
    # Rather a rim of fluid too much than a gyrus too little.
    brain |= ndimage.binary_dilation(brain) & (depth > 0)
    return ndimage.binary_fill_holes(brain)


def _ball(radius: float) -> np.ndarray:
    """A ball of a radius in mm at `_EDGE_GRID`."""
    reach = round(radius / _EDGE_GRID)
    x, y, z = np.mgrid[-reach : reach + 1, -reach : reach + 1, -reach : reach + 1]
    return x**2 + y**2 + z**2 <= reach**2 + 0.5
