"""Tumour labels and regions: one canonical numbering, and the conventions files use.

Canonical labels, in shards and in `StudyBatch.seg`: 0 background, 1 necrotic core (NCR),
2 oedema / infiltration (ED), 3 enhancing tumour (ET), 4 resection cavity (RC).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

CONVENTIONS: dict[str, dict[int, int]] = {
    "brats2021": {0: 0, 1: 1, 2: 2, 4: 3},
    "brats2023": {0: 0, 1: 1, 2: 2, 3: 3, 4: 4},
    "bratsped": {0: 0, 1: 3, 2: 1, 3: 1, 4: 2},
}
"""Convention → label in the file → canonical label.

`brats2021` is BraTS up to 2022; `brats2023` BraTS since then, its post-treatment cases with the
resection cavity included; `bratsped` its paediatric cases: enhancing, solid, cystic, oedema.
"""

REGIONS: dict[str, tuple[int, ...]] = {"ET": (3,), "TC": (1, 3), "WT": (1, 2, 3)}
"""Overlapping regions of BraTS, in the order of the channels of every region tensor."""


def to_canonical(seg: np.ndarray, convention: str) -> np.ndarray:
    """Labels of a file in canonical numbering.

    Args:
        seg: Labels as the file has them, any integer-valued array.
        convention: A key of `CONVENTIONS`.

    Returns:
        uint8 array of the same shape.

    Raises:
        ValueError: If a label is not part of the convention.
    """
    table = CONVENTIONS[convention]
    labels, counts = np.unique(seg, return_counts=True)
    voxels = dict(zip(labels.tolist(), counts.tolist(), strict=True))
    if unknown := [label for label in voxels if label not in table]:
        listed = ", ".join(f"{label:g} ({voxels[label]} voxels)" for label in unknown[:5])
        more = f" and {len(unknown) - 5} others" if len(unknown) > 5 else ""
        raise ValueError(
            f"labels {listed}{more} are not of the convention {convention!r} ({_spelt(table)}); "
            f"{_nearest(voxels)}; number them as {convention!r} does"
        )
    lookup = np.zeros(max(table) + 1, np.uint8)
    for label, canonical in table.items():
        lookup[label] = canonical
    return lookup[seg.astype(np.int64)]


def _nearest(voxels: Mapping[float, int]) -> str:
    """The conventions that have all labels, or the one that has most labelled voxels."""
    known = {
        name: sum(count for label, count in voxels.items() if label and label in table)
        for name, table in CONVENTIONS.items()
    }
    fitting = [name for name, table in CONVENTIONS.items() if set(voxels) <= set(table)]
    if fitting:
        return f"{' and '.join(fitting)} would fit"
    nearest = max(known, key=lambda name: known[name])
    return f"nearest known: {nearest!r} ({_spelt(CONVENTIONS[nearest])})"


def _spelt(labels: Iterable[int]) -> str:
    return ", ".join(map(str, labels))


def from_canonical(seg: np.ndarray, convention: str) -> np.ndarray:
    """Canonical labels in the numbering of a convention, uint8.

    Raises:
        ValueError: If a canonical label has no counterpart in the convention.
    """
    lookup: dict[int, int] = {}
    for label, canonical in CONVENTIONS[convention].items():
        lookup.setdefault(canonical, label)
    if missing := {int(label) for label in np.unique(seg)} - set(lookup):
        raise ValueError(f"canonical labels {sorted(missing)} do not exist in {convention!r}")
    table = np.zeros(max(lookup) + 1, np.uint8)
    table[list(lookup)] = list(lookup.values())
    return table[seg]


def to_regions(seg: Tensor) -> Tensor:
    """Overlapping regions of canonical labels.

    Args:
        seg: [..., D, H, W] integer labels.

    Returns:
        [..., R, D, H, W] bool in the order of `REGIONS`.
    """
    import torch  # late, so that processes that only read files start fast

    masks = [torch.isin(seg, seg.new_tensor(labels)) for labels in REGIONS.values()]
    return torch.stack(masks, dim=-4)


def from_regions(regions: Tensor) -> Tensor:
    """Canonical labels of nested regions: ET inside TC inside WT, an inner region wins.

    Args:
        regions: [..., R, D, H, W] bool in the order of `REGIONS`.

    Returns:
        [..., D, H, W] uint8.
    """
    import torch

    et, tc, wt = regions.unbind(-4)
    seg = torch.zeros_like(wt, dtype=torch.uint8)
    seg = seg.masked_fill(wt, 2).masked_fill(tc, 1).masked_fill(et, 3)
    return seg
