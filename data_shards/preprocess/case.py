"""What the steps of preprocessing hand to each other."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Series:
    """One sequence, or the labels, on a grid."""

    data: np.ndarray
    """[D, H, W] float32 intensities, or uint8 labels."""
    affine: np.ndarray
    """[4, 4] float64, voxel → RAS+ mm."""
    mask: np.ndarray | None = None
    """[D, H, W] bool, where there is tissue; None until it is known."""

    @property
    def spacing(self) -> np.ndarray:
        """[3] float64, mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)


@dataclass(frozen=True)
class Case:
    """A study on its way."""

    series: dict[str, Series]
    seg: Series | None = None
    history: dict[str, Any] = field(default_factory=dict)
    """Step → what it did."""

    def map(self, change: Callable[[Series], Series]) -> "Case":
        """The case with every series and the labels changed alike."""
        return replace(
            self,
            series={name: change(series) for name, series in self.series.items()},
            seg=None if self.seg is None else change(self.seg),
        )

    def noted(self, step: str, what: Any) -> "Case":
        """The case with a note of what a step did."""
        return replace(self, history={**self.history, step: what})
