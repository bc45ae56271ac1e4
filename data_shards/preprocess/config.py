"""Settings of preprocessing: those of the chain, and a section for each step that has any."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from gliomoe.data_shards.errors import UsageError


@dataclass(frozen=True)
class RegisterConfig:
    """Rigid registration of the series of a session."""

    grid: float = 3.0
    """Voxel size in mm of the copies that are compared."""
    max_rotation: float = 30.0
    """Degrees from the header's position beyond which a result is not believed."""
    max_shift: float = 60.0
    """Millimetres from where the search began beyond which a result is not believed."""
    min_gain: float = 0.01
    """Share by which the mutual information must rise for a series to be moved."""
    min_motion: float = 0.5
    """Millimetres, on average over the head, below which a series stays where it is."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if not 1 <= self.grid <= 10:
            raise ValueError(f"register.grid must lie between 1 and 10 mm, not {self.grid:g}")
        if not 0 < self.max_rotation <= 90 or not self.max_shift > 0:
            raise ValueError("register.max-rotation must lie in (0, 90], max-shift above 0")


@dataclass(frozen=True)
class BrainConfig:
    """Brain extraction."""

    method: Literal["auto", "atlas", "hd-bet", "synthstrip", "none"] = "auto"
    """auto: atlas, except for studies whose background is empty already."""
    grid: float = 3.0
    """Voxel size in mm at which the atlas is fitted."""
    min_ml: float = 500.0
    """Least volume of a brain in millilitres; a study below is refused."""
    max_ml: float = 2500.0
    """Greatest volume of a brain."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if not 2 <= self.grid <= 6:
            raise ValueError(f"brain.grid must lie between 2 and 6 mm, not {self.grid:g}")
        if not 0 <= self.min_ml < self.max_ml:
            raise ValueError("brain.min-ml must be less than brain.max-ml")


@dataclass(frozen=True)
class N4Config:
    """Correction of the bias field."""

    mode: Literal["auto", "on", "off"] = "auto"
    """auto: only series that had their skull, and no quantitative maps."""
    grid: float = 6.0
    """Voxel size in mm of the copy on which the field is found."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if not 1 <= self.grid <= 10:
            raise ValueError(f"n4.grid must lie between 1 and 10 mm, not {self.grid:g}")


@dataclass(frozen=True)
class PreprocessConfig:
    """How files become a study on one grid."""

    spacing: float | None = 1.0
    """Voxel size in mm along every axis; None keeps that of the best-resolved sequence."""
    steps: tuple[str, ...] = ("register", "brain", "n4", "background", "grid", "crop")
    """Steps after the axes are brought along R, A, S; in this order, any may be left out."""
    register: RegisterConfig = field(default_factory=RegisterConfig)
    """Step `register`."""
    brain: BrainConfig = field(default_factory=BrainConfig)
    """Step `brain`."""
    n4: N4Config = field(default_factory=N4Config)
    """Step `n4`."""

    def __post_init__(self) -> None:
        """Refuse impossible settings."""
        if self.spacing is not None and not 0.1 <= self.spacing <= 20:
            raise ValueError(f"spacing must lie between 0.1 and 20 mm, not {self.spacing:g}")

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> "PreprocessConfig":
        """The settings that `to_json` wrote; what is missing has its default.

        Raises:
            UsageError: If a key is unknown or a value impossible.
        """
        sections = {"register": RegisterConfig, "brain": BrainConfig, "n4": N4Config}
        if unknown := set(table) - {each.name for each in fields(cls)}:
            raise UsageError(f"unknown preprocessing settings {', '.join(sorted(unknown))}")
        values = dict(table)
        try:
            if "steps" in values:
                values["steps"] = tuple(values["steps"])
            for name, section in sections.items():
                if name in values:
                    values[name] = section(**values[name])
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise UsageError(f"impossible preprocessing settings ({error})") from error

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `dataset.json` and checkpoints keep them."""
        return {**asdict(self), "steps": list(self.steps)}

    def digest(self) -> str:
        """Hash of the settings, 16 hexadecimal digits."""
        text = json.dumps(self.to_json(), sort_keys=True).encode()
        return hashlib.blake2b(text, digest_size=8).hexdigest()
