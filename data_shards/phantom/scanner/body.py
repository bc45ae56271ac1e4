"""The body in the scanner: shares of tissue, and the image that one sequence makes of them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gliomoe.data_shards.box import Box, bounding_box
from gliomoe.data_shards.phantom.grid import Grid
from gliomoe.data_shards.phantom.scanner.protocols import Acquisition
from gliomoe.data_shards.phantom.scanner.signal import signal
from gliomoe.data_shards.phantom.scanner.tissues import LEAKY, Relaxation

_CONCENTRATIONS = 33
"""Points at which the signal is computed where the contrast agent varies."""


@dataclass(frozen=True)
class Body:
    """What lies in the scanner; with a head the images are raw, without one preprocessed."""

    grid: Grid
    """Of the brain."""
    brain: dict[str, np.ndarray]
    """Tissue → [D, H, W] share on `grid`."""
    texture: np.ndarray
    """[D, H, W] factor of the brain's signal, about 1."""
    enhancement: np.ndarray | None = None
    """[D, H, W] factor of the gadolinium in tumour tissue, about 1; None for 1."""
    head: dict[str, np.ndarray] | None = None
    """Tissue → [D', H', W'] share on `head_grid`, 0 in the brain; None for a stripped brain."""
    head_grid: Grid | None = None
    """`grid` with whole voxels added on each side."""

    def __post_init__(self) -> None:
        """A head needs its grid."""
        if (self.head is None) != (self.head_grid is None):
            raise ValueError("head and head_grid go together")

    @property
    def whole_grid(self) -> Grid:
        """The grid of the head, or of the brain without one."""
        return self.head_grid or self.grid

    @cached_property
    def inside(self) -> Box:
        """Where the brain's grid lies in the whole grid."""
        steps = np.subtract(self.grid.origin, self.whole_grid.origin) / self.grid.spacing
        starts = np.rint(steps).astype(int)
        return tuple(slice(a, a + n) for a, n in zip(starts, self.grid.shape, strict=True))

    @cached_property
    def boxes(self) -> dict[str, Box]:
        """The box around each of the brain's tissues that is there at all."""
        boxes = {name: bounding_box(share) for name, share in self.brain.items()}
        return {name: box for name, box in boxes.items() if box}

    @cached_property
    def brain_extent(self) -> np.ndarray:
        """[2, 3] mm, the corners of the box around the brain."""
        stacked = np.array([[(s.start, s.stop - 1) for s in box] for box in self.boxes.values()])
        corners = np.stack([stacked[..., 0].min(0), stacked[..., 1].max(0)])
        return corners * self.grid.spacing + np.array(self.grid.origin)

    @cached_property
    def extent(self) -> np.ndarray:
        """[2, 3] mm, the corners of the box around all tissue."""
        corners = [self.brain_extent]
        grid = self.whole_grid
        for share in (self.head or {}).values():
            if box := bounding_box(share):
                voxels = np.array([[s.start for s in box], [s.stop - 1 for s in box]])
                corners.append(voxels * grid.spacing + np.array(grid.origin))
        stacked = np.stack(corners)
        return np.stack([stacked[:, 0].min(0), stacked[:, 1].max(0)])


def paint(
    body: Body,
    acquisition: Acquisition,
    relaxation: dict[str, Relaxation],
    b: float | None = None,
) -> np.ndarray:
    """The ideal image of a body, signed, white matter without diffusion weighting at 1.

    Args:
        body: What is scanned.
        acquisition: How.
        relaxation: Tissue → its relaxation.
        b: Diffusion weighting, s/mm2; None takes the series'.

    Returns:
        [D, H, W] float32 on `body.whole_grid`.
    """
    white = float(signal(acquisition, "wm", relaxation["wm"], b=0.0))

    def brightness(name: str, gadolinium: np.ndarray | None = None) -> np.ndarray:
        found = signal(acquisition, name, relaxation[name], gadolinium, b) / white
        return found.astype(np.float32)

    image = np.zeros(body.grid.shape, np.float32)
    uneven = acquisition.sequence == "t1ce" and body.enhancement is not None
    for name, box in body.boxes.items():
        value: np.ndarray = brightness(name)
        if uneven and name in LEAKY and body.enhancement is not None:
            agent = relaxation[name].gadolinium * body.enhancement[box]
            table = np.linspace(0, max(float(agent.max()), 1e-3), _CONCENTRATIONS)
            value = np.interp(agent, table, brightness(name, table)).astype(np.float32)
        image[box] += value * body.brain[name][box]
    image *= body.texture
    if body.head is None:
        return image
    whole = np.zeros(body.whole_grid.shape, np.float32)
    whole[body.inside] = image
    for name, share in body.head.items():
        whole += brightness(name) * share
    return whole
