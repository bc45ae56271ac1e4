"""Settings of preprocessing."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class PreprocessConfig:
    """How files become a study on one grid."""

    spacing: float | None = 1.0
    """Voxel size in mm along every axis; None keeps that of the best-resolved sequence."""
    steps: tuple[str, ...] = ("background", "grid", "crop")
    """Steps in order, after the axes are brought along R, A, S."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.spacing is not None and not 0.1 <= self.spacing <= 20:
            raise ValueError(f"spacing must lie between 0.1 and 20 mm, not {self.spacing:g}")

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `dataset.json` and checkpoints keep them."""
        return {**asdict(self), "steps": list(self.steps)}

    def digest(self) -> str:
        """Hash of the settings, 16 hexadecimal digits."""
        text = json.dumps(self.to_json(), sort_keys=True).encode()
        return hashlib.blake2b(text, digest_size=8).hexdigest()
