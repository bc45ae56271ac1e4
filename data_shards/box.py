"""The box around the voxels of something."""

import numpy as np

Box = tuple[slice, ...]


def bounding_box(field: np.ndarray) -> Box:
    """The least box around the voxels that are not 0, empty if there are none.

    Args:
        field: [D, H, W].
    """
    box = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(field.any(axis=others))
        if not filled.size:
            return ()
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)
