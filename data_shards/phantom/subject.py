"""One subject: who it is, drawn in a moment, and its images, rendered in seconds.

Notable: both are pure functions of (configuration, number). Streams of random numbers are named,
so that a new draw in one place leaves every other as it was.
"""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.phantom.anatomy.brain import build_anatomy, draw_head_shape
from gliomoe.data_shards.phantom.anatomy.lesions import stroke, white_matter_lesions
from gliomoe.data_shards.phantom.composition import compose, label, signal_texture
from gliomoe.data_shards.phantom.grid import MODEL_GRID, Grid, brain_grid, smooth_noise
from gliomoe.data_shards.phantom.patients.markers import Glioma, draw_glioma, draw_type
from gliomoe.data_shards.phantom.scanner.acquire import acquire
from gliomoe.data_shards.phantom.scanner.body import Body
from gliomoe.data_shards.phantom.scanner.protocols import PROTOCOLS, Acquisition, draw_session
from gliomoe.data_shards.phantom.scanner.regrid import onto_grid
from gliomoe.data_shards.phantom.scanner.tissues import draw_relaxation
from gliomoe.data_shards.phantom.tumour.growth import Tumour, grow_tumour

GENERATOR_VERSION = 1
"""Counts up with every change that alters what a seed gives."""

_AGES = {"normal": (48, 17), "white matter disease": (56, 15), "stroke": (68, 12)}
_KEPT = {"t1": 0.93, "t1ce": 0.2, "t2": 0.55, "flair": 0.4}
_KEPT_WITH_GLIOMA = {"t1": 0.95, "t1ce": 0.75, "t2": 0.65, "flair": 0.7}
"""Share of the subjects of an unlabelled archive that have a sequence."""

_TEXTURE = 0.03
_GOLDEN = 0.6180339887498949
_SILVER = 0.41421356237309515


@dataclass(frozen=True)
class CohortConfig:
    """What a cohort is; equal configurations give equal bytes."""

    subjects: int
    """How many subjects."""
    protocol: Literal["A", "B", "C", "mixed"] = "A"
    """Kind of scanner: A to train on, B and C shifted, mixed draws one for each subject."""
    unlabelled: bool = False
    """An archive for pretraining: most subjects without glioma, sequences missing, no labels."""
    spacing: float = 1.0
    """Voxel size in mm."""
    seed: int = 0
    """Same seed and options, same bytes."""
    glioma_share: float = 0.3
    """Gliomas in an unlabelled cohort; a labelled one is all gliomas."""
    white_matter_share: float = 0.2
    """White-matter disease in an unlabelled cohort."""
    stroke_share: float = 0.05
    """Strokes in an unlabelled cohort."""
    missing_labels: float = 0.0
    """Share of the marker and grade labels of a labelled cohort that are withheld."""

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        if self.subjects < 1:
            raise UsageError(f"subjects {self.subjects}: a cohort needs at least 1")
        if self.protocol not in (*PROTOCOLS, "mixed"):
            raise UsageError(f"protocol {self.protocol!r}: known are {', '.join(PROTOCOLS)}, mixed")
        if not 0.5 <= self.spacing <= 8:
            raise UsageError(f"spacing {self.spacing}: choose 0.5 to 8 mm")
        if self.seed < 0:
            raise UsageError(f"seed {self.seed}: choose 0 or more")
        shares = (self.glioma_share, self.white_matter_share, self.stroke_share)
        if min(shares) < 0 or sum(shares) > 1 or not 0 <= self.missing_labels <= 1:
            raise UsageError("shares must be between 0 and 1, those of diseases 1 at most together")


@dataclass(frozen=True)
class Subject:
    """One subject before anything is rendered."""

    number: int
    """From 1."""
    age: int
    sex: str
    protocol: str
    diagnosis: str
    """`glioma`, `white matter disease`, `stroke` or `normal`."""
    glioma: Glioma | None
    session: dict[str, Acquisition]
    """Sequence → how it is scanned, those present only."""
    labels: dict[str, str]
    """Columns of the participants' table, `n/a` where withheld."""


def generator(config: CohortConfig, number: int, stream: str) -> np.random.Generator:
    """Random numbers of one named purpose for one subject.

    Protocol and kind of cohort count: a test cohort made with the seed of the training cohort, but
    by another protocol, holds other people.
    """
    purpose = f"{config.protocol} {config.unlabelled} {stream}"
    return np.random.default_rng((config.seed, number, zlib.crc32(purpose.encode())))


def draw_subject(config: CohortConfig, number: int) -> Subject:
    """Who subject `number` (from 1) of a cohort is.

    Diagnoses and types follow low-discrepancy sequences: any run of subjects, however short, holds
    them close to their shares.
    """
    start, type_start = generator(config, 0, "diagnoses").random(2)
    diagnosis = "glioma"
    if config.unlabelled:
        diagnosis = _diagnosis(config, (start + number * _GOLDEN) % 1)
    rng = generator(config, number, "patient")
    glioma = None
    if diagnosis == "glioma":
        glioma, age, sex = draw_glioma(draw_type((type_start + number * _SILVER) % 1), rng)
    else:
        age = int(np.clip(rng.normal(*_AGES[diagnosis]), 18, 89))
        sex = "M" if rng.random() < 0.5 else "F"
    rng = generator(config, number, "session")
    protocol: str = config.protocol
    if protocol == "mixed":
        protocol = str(rng.choice(list(PROTOCOLS)))
    session = draw_session(protocol, rng)
    session = {sequence: session[sequence] for sequence in _KEPT}
    if config.unlabelled:
        kept = _KEPT_WITH_GLIOMA if glioma else _KEPT
        present = [sequence for sequence in session if rng.random() < kept[sequence]] or ["t1"]
        session = {sequence: session[sequence] for sequence in present}
    labels = _labels(config, number, glioma)
    return Subject(number, age, sex, protocol, diagnosis, glioma, session, labels)


def render(config: CohortConfig, subject: Subject) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images and segmentation of a subject.

    Returns:
        Sequence → [D, H, W] int16, background 0; and [D, H, W] uint8 labels 0, 1, 2, 4. Both lie
        on `brain_grid(config.spacing)`.
    """

    def rng(stream: str) -> np.random.Generator:
        return generator(config, subject.number, stream)

    head = draw_head_shape(rng("head"), subject.age)
    model = build_anatomy(head, MODEL_GRID)
    tumour = grow_tumour(subject.glioma, model, rng("tumour")) if subject.glioma else None
    lesions = {}
    if subject.diagnosis == "white matter disease":
        lesions["lesion"] = white_matter_lesions(model, rng("lesions"))
    if subject.diagnosis == "stroke":
        lesions["infarct"] = stroke(model, rng("lesions"))

    grid = brain_grid(config.spacing)
    anatomy = build_anatomy(head, grid, tumour.push if tumour else None)
    shares = compose(anatomy, tumour, lesions)
    body = Body(grid, shares, _texture(tumour, grid, rng("texture")))
    field = next(iter(subject.session.values())).field
    relaxation = draw_relaxation(field, rng("relaxation"))
    images = {
        sequence: onto_grid(
            acquire(body, relaxation, acquisition, rng(sequence)), grid, anatomy.brain
        )
        for sequence, acquisition in subject.session.items()
    }
    seg = label(shares) if tumour else np.zeros(grid.shape, np.uint8)
    return images, seg


def _diagnosis(config: CohortConfig, place: float) -> str:
    """The diagnosis at a place in 0 to 1 of the cumulated shares."""
    for diagnosis, share in (
        ("glioma", config.glioma_share),
        ("white matter disease", config.white_matter_share),
        ("stroke", config.stroke_share),
    ):
        if place < share:
            return diagnosis
        place -= share
    return "normal"


def _labels(config: CohortConfig, number: int, glioma: Glioma | None) -> dict[str, str]:
    """What the participants' table may say about a tumour."""
    labels = dict.fromkeys(("grade", "idh", "1p19q", "tert"), "n/a")
    if glioma is None or config.unlabelled:
        return {**labels, "who_type": "n/a"}
    truth = (str(glioma.grade), glioma.idh, glioma.codeletion, glioma.tert)
    known = generator(config, number, "labels").random(len(truth)) >= config.missing_labels
    labels = {
        name: value if shown else "n/a"
        for name, value, shown in zip(labels, truth, known, strict=True)
    }
    # The type would give the withheld markers away.
    return {**labels, "who_type": glioma.who_type if known.all() else "n/a"}


def _texture(tumour: Tumour | None, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Factor of the signal, [D, H, W]: fine unevenness of tissue, more of it in a tumour."""
    texture = 1 + np.float32(_TEXTURE) * smooth_noise(rng, 3.0)
    texture = MODEL_GRID.resample(texture, grid)
    return texture if tumour is None else texture + signal_texture(tumour, grid)
