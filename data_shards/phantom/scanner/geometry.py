"""Where the voxels of a series lie, and how a field of the body comes to lie in them.

Axes of a series follow those of the body (right, anterior, superior) until it is stored; turns
are of a few degrees. A slice weighs the body by its profile: a trapezoid, as wide at half its
height as the slice is thick, so that slices without gaps share the whole body among them.
"""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gliomoe.data_shards.phantom.grid import CENTRE_MM, Grid, interpolate
from gliomoe.data_shards.phantom.scanner.body import Body
from gliomoe.data_shards.phantom.scanner.protocols import Acquisition, Pose

_SAME = 1.15
"""Voxels up to this factor of the body's spacing are the body's, in the preprocessed form."""
_RAMP = 0.3
"""Width of each flank of the slice profile, of the thickness."""
_FINER = 0.5
"""A voxel of up to 1 + this many of the body's is one sample."""
_AIR_MM = 12.0
"""Around the head, in the plane."""
_BEYOND_MM = 8.0
"""Above and below the brain, along thick slices."""


@dataclass(frozen=True)
class Geometry:
    """The grid of one series before it is stored, in the order of the body's axes."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    """Between voxel centres, mm."""
    slice_axis: int
    thickness: float
    """mm; 0 for a plane of the body as it is."""
    world: np.ndarray
    """[4, 4] voxel → mm in the scanner, what the file says."""
    body: np.ndarray
    """[4, 4] voxel → mm in the body, what the file does not know."""
    stored: str = "RAS"
    """Order and direction of the stored axes."""

    @property
    def aligned(self) -> bool:
        """Whether the axes are exactly the body's."""
        return bool(np.all(self.body[:3, :3] == np.diag(self.spacing)))

    def store(self, image: np.ndarray) -> np.ndarray:
        """An image of this geometry with its axes in stored order."""
        return np.ascontiguousarray(nib.orientations.apply_orientation(image, self._turn()))

    def stored_affine(self) -> np.ndarray:
        """[4, 4] stored voxel → mm in the scanner."""
        return self.world @ nib.orientations.inv_ornt_aff(self._turn(), self.shape)

    def _turn(self) -> np.ndarray:
        """From the body's order of axes to the stored one."""
        start, end = (nib.orientations.axcodes2ornt(codes) for codes in ("RAS", self.stored))
        return nib.orientations.ornt_transform(start, end)


def plan(acquisition: Acquisition, body: Body) -> Geometry:
    """The grid of a series: on the body's axes without a head, else as the patient lies."""
    return _plan_raw(acquisition, body) if body.head else _plan_preprocessed(acquisition, body)


def sample(field: np.ndarray, grid: Grid, geometry: Geometry, finer: list[int]) -> np.ndarray:
    """A field of the body in the slices of a series.

    Args:
        field: [D, H, W] float32 on `grid`.
        grid: The body's.
        geometry: The series'.
        finer: Samples in a voxel along each axis, 1 for the slice axis; the first of them is in
            the middle of the voxel.

    Returns:
        Float32, the series' shape times `finer`.
    """
    axis = geometry.slice_axis
    steps = list(finer)
    starts, counts = [0.0] * 3, [n * f for n, f in zip(geometry.shape, finer, strict=True)]
    thick = geometry.thickness > 0
    if thick:
        # Planes about as far apart as the body's voxels, and enough of them at either end.
        steps[axis] = max(round(geometry.spacing[axis] / grid.spacing), 1)
        reach = int(
            np.ceil((1 + _RAMP) / 2 * geometry.thickness * steps[axis] / geometry.spacing[axis])
        )
        counts[axis] = (geometry.shape[axis] - 1) * steps[axis] + 1 + 2 * reach
        starts[axis] = -reach / steps[axis]
    into = geometry.body.copy()
    into[:3, 3] += geometry.body[:3, :3] @ starts
    into[:3, :3] /= steps
    into = np.linalg.inv(grid.affine) @ into
    if geometry.aligned:
        for other in range(3):
            places = into[other, 3] + into[other, other] * np.arange(counts[other])
            field = _along(field, places, other)
    else:
        field = ndimage.affine_transform(
            field, into[:3, :3], into[:3, 3], tuple(counts), np.float32, order=1
        )
    if not thick:
        return field
    width = geometry.thickness * steps[axis] / geometry.spacing[axis]
    centres = reach + steps[axis] * np.arange(geometry.shape[axis])
    return _select(field, axis, centres, width)


def slice_profile(places: np.ndarray, thickness: float) -> np.ndarray:
    """Integral of the slice profile from minus infinity to places, of the profile's own."""
    inner, outer = (1 - _RAMP) / 2 * thickness, (1 + _RAMP) / 2 * thickness
    edges = np.clip(places, -outer, outer)
    flank = np.clip(np.abs(edges) - inner, 0, None)
    area = np.minimum(np.abs(edges), inner) + flank - flank**2 / (2 * (outer - inner))
    return 0.5 + np.sign(edges) * area / thickness


def _along(field: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Linear values along one axis, 0 outside; the field itself where nothing changes."""
    count = field.shape[axis]
    if len(places) == count and np.allclose(places, np.arange(count), atol=1e-6):
        return field
    values = interpolate(field, places, axis - 3)
    outside = (places < -0.5) | (places > count - 0.5)
    if outside.any():
        values[(slice(None),) * axis + (outside,)] = 0
    return values


def _select(field: np.ndarray, axis: int, centres: np.ndarray, thickness: float) -> np.ndarray:
    """Slices of a field: profile and centres in units of its planes."""
    planes = np.moveaxis(field, axis, 0)
    out = np.zeros((len(centres), *planes.shape[1:]), np.float32)
    half = (1 + _RAMP) / 2 * thickness
    for image, centre in zip(out, centres, strict=True):
        first, last = int(np.floor(centre - half)), int(np.ceil(centre + half))
        edges = np.arange(first, last + 2) - 0.5 - centre
        weights = np.diff(slice_profile(edges, thickness)).astype(np.float32)
        for place, weight in enumerate(weights, first):
            if weight and 0 <= place < len(planes):
                image += weight * planes[place]
    return np.moveaxis(out, 0, axis)


def samples_per_voxel(geometry: Geometry, grid: Grid) -> list[int]:
    """How many samples a voxel takes along each axis, so that fine detail does not alias."""
    finer = [max(int(np.ceil(v / grid.spacing - _FINER)), 1) for v in geometry.spacing]
    finer[geometry.slice_axis] = 1
    return finer


def _plan_preprocessed(acquisition: Acquisition, body: Body) -> Geometry:
    """Slices on the axes of the body's grid, over all of it."""
    grid, axis = body.grid, acquisition.slice_axis
    shape, spacing, origin = list(grid.shape), [grid.spacing] * 3, list(grid.origin)
    thickness = max(acquisition.thickness, grid.spacing)
    distance = thickness + acquisition.gap
    for other in range(3):
        voxel = distance if other == axis else acquisition.in_plane
        if voxel <= _SAME * grid.spacing:
            continue
        length = grid.spacing * (grid.shape[other] - 1)
        shape[other] = int(np.ceil(length / voxel)) + 1
        spacing[other] = voxel
        shift = acquisition.slice_offset - 0.5 if other == axis else 0.0
        origin[other] += length / 2 + voxel * (shift - (shape[other] - 1) / 2)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    world = affine.copy()
    world[:3, 3] += acquisition.misregistration
    thick = thickness if spacing[axis] > grid.spacing else 0.0
    return Geometry(tuple(shape), tuple(spacing), axis, thick, world, affine)


def _plan_raw(acquisition: Acquisition, body: Body) -> Geometry:
    """Slices through the head as the patient lies, over the brain or the whole head."""
    spacing_mm, axis = body.grid.spacing, acquisition.slice_axis
    thickness = max(acquisition.thickness, spacing_mm)
    spacing = np.full(3, max(acquisition.in_plane, spacing_mm))
    spacing[axis] = thickness + acquisition.gap
    box = body.extent + np.array([[-1], [1]]) * _AIR_MM
    if not acquisition.volume:
        box[:, axis] = body.brain_extent[:, axis] + np.array([-1, 1]) * _BEYOND_MM
    shape = np.ceil((box[1] - box[0]) / spacing).astype(int)
    centre = (shape - 1) / 2
    centre[axis] -= acquisition.slice_offset - 0.5
    lying = _rigid(acquisition.session, np.array(CENTRE_MM))
    # Slices are tilted to the head, volumes are not.
    turn = _rotation(acquisition.oblique)
    if not acquisition.volume:
        turn = lying[:3, :3] @ turn
    world = np.eye(4)
    world[:3, :3] = turn * spacing
    middle = (lying @ [*box.mean(0), 1.0])[:3] + acquisition.oblique.shift
    world[:3, 3] = middle - world[:3, :3] @ centre
    moved = _rigid(acquisition.motion, (lying @ [*CENTRE_MM, 1.0])[:3]) @ lying
    return Geometry(
        shape=tuple(int(n) for n in shape),
        spacing=tuple(float(v) for v in spacing),
        slice_axis=axis,
        thickness=thickness,
        world=world,
        body=np.linalg.inv(moved) @ world,
        stored=acquisition.stored,
    )


def _rotation(pose: Pose) -> np.ndarray:
    """[3, 3] of a pose's turn."""
    return Rotation.from_rotvec(pose.turn, degrees=True).as_matrix()


def _rigid(pose: Pose, centre: np.ndarray) -> np.ndarray:
    """[4, 4] motion of a pose about a centre."""
    motion = np.eye(4)
    motion[:3, :3] = _rotation(pose)
    motion[:3, 3] = centre + pose.shift - motion[:3, :3] @ centre
    return motion
