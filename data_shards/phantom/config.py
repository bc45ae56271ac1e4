"""What a phantom cohort is."""

from dataclasses import dataclass
from typing import Literal

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.phantom.scanner.protocols import PROTOCOLS, SEQUENCES, SequenceName

GLIOMA_SEQUENCES: tuple[SequenceName, ...] = SEQUENCES[:4]
"""The four of BraTS, which every subject of a labelled cohort has unless asked otherwise."""


@dataclass(frozen=True)
class CohortConfig:
    """What a cohort is; equal configurations give equal bytes."""

    subjects: int
    """How many subjects."""
    protocol: Literal["A", "B", "C", "mixed"] = "A"
    """Kind of scanner: A to train on, B and C shifted, mixed draws one for each subject."""
    unlabelled: bool = False
    """An archive for pretraining: most subjects without glioma, sequences missing, no labels."""
    form: Literal["preprocessed", "raw"] = "preprocessed"
    """Skull-stripped on one grid, or as scanned: skull on, every series on a grid of its own."""
    sequences: tuple[SequenceName, ...] = ()
    """Sequences that may be there; none stands for the four of BraTS, unlabelled for all."""
    spacing: float = 1.0
    """Voxel size in mm; that of the finest series in raw form."""
    seed: int = 0
    """Same seed and options, same bytes."""
    glioma_share: float = 0.3
    """Gliomas in an unlabelled cohort; a labelled one is all gliomas."""
    white_matter_share: float = 0.2
    """White-matter disease in an unlabelled cohort."""
    stroke_share: float = 0.05
    """Strokes in an unlabelled cohort."""
    resected_share: float = 0.0
    """Gliomas scanned after an operation; any makes the labels those of BraTS since 2023."""
    missing_labels: float = 0.0
    """Share of the marker and grade labels of a labelled cohort that are withheld."""

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        if self.subjects < 1:
            raise UsageError(f"subjects {self.subjects}: a cohort needs at least 1")
        if self.protocol not in (*PROTOCOLS, "mixed"):
            raise UsageError(f"protocol {self.protocol!r}: known are {', '.join(PROTOCOLS)}, mixed")
        if self.form not in ("preprocessed", "raw"):
            raise UsageError(f"form {self.form!r}: choose preprocessed or raw")
        if unknown := sorted(set(self.sequences) - set(SEQUENCES)):
            raise UsageError(f"sequences {unknown}: known are {', '.join(SEQUENCES)}")
        if len(set(self.sequences)) < len(self.sequences):
            raise UsageError("sequences: one is named twice")
        if not 0.5 <= self.spacing <= 8:
            raise UsageError(f"spacing {self.spacing}: choose 0.5 to 8 mm")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}: choose 0 or more")
        diseases = (self.glioma_share, self.white_matter_share, self.stroke_share)
        each = (*diseases, self.resected_share, self.missing_labels)
        if not all(0 <= share <= 1 for share in each) or sum(diseases) > 1:
            raise UsageError("shares must be between 0 and 1, those of diseases 1 at most together")

    @property
    def allowed(self) -> tuple[SequenceName, ...]:
        """Sequences that a subject may have, in the order of `SEQUENCES`."""
        wanted = self.sequences or (SEQUENCES if self.unlabelled else GLIOMA_SEQUENCES)
        return tuple(name for name in SEQUENCES if name in wanted)

    @property
    def convention(self) -> str:
        """Of the labels in segmentations, a key of `gliomoe.data_shards.labels.CONVENTIONS`."""
        return "brats2023" if self.resected_share else "brats2021"
