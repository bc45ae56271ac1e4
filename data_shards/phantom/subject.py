"""One subject: who it is, drawn in a moment, and its images, rendered in seconds.

Notable: both are pure functions of (configuration, number). Streams of random numbers are named,
so that a new draw in one place leaves every other as it was.
"""

import zlib
from dataclasses import dataclass

import numpy as np

from gliomoe.data_shards.phantom.anatomy.brain import Anatomy, build_anatomy, draw_head_shape
from gliomoe.data_shards.phantom.anatomy.envelope import envelope
from gliomoe.data_shards.phantom.anatomy.head import head_tissues
from gliomoe.data_shards.phantom.anatomy.lesions import (
    ageing_lesions,
    stroke,
    white_matter_lesions,
)
from gliomoe.data_shards.phantom.composition import compose, label, signal_texture
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.phantom.grid import MODEL_GRID, Grid, brain_grid, head_grid, smooth_noise
from gliomoe.data_shards.phantom.patients.markers import Glioma, draw_glioma, draw_type
from gliomoe.data_shards.phantom.scanner.acquire import acquire
from gliomoe.data_shards.phantom.scanner.body import Body
from gliomoe.data_shards.phantom.scanner.protocols import (
    PROTOCOLS,
    SEQUENCES,
    Acquisition,
    draw_session,
)
from gliomoe.data_shards.phantom.scanner.regrid import labels_onto, onto_grid
from gliomoe.data_shards.phantom.scanner.tissues import draw_relaxation
from gliomoe.data_shards.phantom.tumour.growth import Tumour, grow_tumour

GENERATOR_VERSION = 2
"""Counts up with every change that alters what a seed gives."""

_AGES = {"normal": (48, 17), "white matter disease": (56, 15), "stroke": (68, 12)}

_PRESENT = {
    "t1": 0.93,
    "t1ce": 0.2,
    "t2": 0.5,
    "flair": 0.3,
    "pd": 0.08,
    "dwi": 0.3,
    "adc": 0.6,
}
_PRESENT_WITH_GLIOMA = {
    "t1": 0.95,
    "t1ce": 0.75,
    "t2": 0.6,
    "flair": 0.5,
    "pd": 0.04,
    "dwi": 0.45,
    "adc": 0.6,
}
"""Share of the subjects of an unlabelled archive that have a sequence; ADC of those with DWI."""

_MOST_SEQUENCES = 5

_SERIES = {"adc": "dwi"}
"""An ADC map comes of the echoes of the DWI, and so with the same noise."""

_TEXTURE = 0.03
_GOLDEN = 0.6180339887498949
_SILVER = 0.41421356237309515


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


@dataclass(frozen=True)
class Image:
    """Voxels and where they lie."""

    voxels: np.ndarray
    """[D, H, W] int16, of a segmentation uint8."""
    affine: np.ndarray
    """[4, 4] voxel → world, mm."""


@dataclass(frozen=True)
class Images:
    """What the session of one subject gave."""

    series: dict[str, Image]
    """Sequence → image; in preprocessed form all on one grid, background 0."""
    seg: Image
    """Labels of the tumour in the cohort's convention; in raw form on the grid of the series of the
    smallest voxels."""


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
        who_type = draw_type((type_start + number * _SILVER) % 1)
        glioma, age, sex = draw_glioma(who_type, rng, config.resected_share)
    else:
        age = int(np.clip(rng.normal(*_AGES[diagnosis]), 18, 89))
        sex = "M" if rng.random() < 0.5 else "F"
    rng = generator(config, number, "session")
    protocol: str = config.protocol
    if protocol == "mixed":
        protocol = str(rng.choice(list(PROTOCOLS)))
    session = draw_session(protocol, rng)
    present: tuple[str, ...] = config.allowed
    if config.unlabelled:
        present = _present(config, glioma, generator(config, number, "archive"))
    session = {sequence: session[sequence] for sequence in present}
    labels = _labels(config, number, glioma)
    return Subject(number, age, sex, protocol, diagnosis, glioma, session, labels)


def render(config: CohortConfig, subject: Subject) -> Images:
    """Images and segmentation of a subject."""

    def rng(stream: str) -> np.random.Generator:
        return generator(config, subject.number, stream)

    head = draw_head_shape(rng("head"), subject.age)
    model = build_anatomy(head, MODEL_GRID)
    tumour = grow_tumour(subject.glioma, model, rng("tumour")) if subject.glioma else None
    grid = brain_grid(config.spacing)
    anatomy = build_anatomy(head, grid, tumour.push if tumour else None)
    lesions = _lesions(subject, model, rng("lesions"))
    shares = compose(anatomy, tumour, lesions, envelope(anatomy, rng("envelope")))
    raw = config.form == "raw"
    body = Body(
        grid,
        shares,
        texture=_texture(tumour, grid, rng("texture")),
        head=head_tissues(head, anatomy, rng("skull")) if raw else None,
        head_grid=head_grid(config.spacing) if raw else None,
    )
    field = next(iter(subject.session.values())).field
    relaxation = draw_relaxation(field, rng("relaxation"))
    scans = {
        name: acquire(body, relaxation, acquisition, rng(f"scan {_SERIES.get(name, name)}"))
        for name, acquisition in subject.session.items()
    }
    seg = label(shares, config.convention) if tumour else np.zeros(grid.shape, np.uint8)
    if raw:
        drawn_on = min(scans.values(), key=lambda scan: np.prod(scan.geometry.spacing))
        labels = Image(labels_onto(drawn_on, seg, grid), drawn_on.affine)
        return Images(
            {name: Image(scan.image, scan.affine) for name, scan in scans.items()}, labels
        )
    aligned = {
        name: Image(onto_grid(scan, grid, anatomy.brain), grid.affine)
        for name, scan in scans.items()
    }
    return Images(aligned, Image(seg, grid.affine))


def _lesions(subject: Subject, model: Anatomy, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Disease of the tissue besides glioma: tissue → share on the model grid."""
    lesions = {"lesion": ageing_lesions(model, rng, subject.age)}
    if subject.diagnosis == "white matter disease":
        lesions["lesion"] = np.maximum(lesions["lesion"], white_matter_lesions(model, rng))
    if subject.diagnosis == "stroke":
        lesions["infarct"] = stroke(model, rng)
    return lesions


def _present(
    config: CohortConfig, glioma: Glioma | None, rng: np.random.Generator
) -> tuple[str, ...]:
    """Sequences of a subject of an archive: at least one, at most five."""
    shares = _PRESENT_WITH_GLIOMA if glioma else _PRESENT
    drawn = {name: bool(rng.random() < shares[name]) for name in SEQUENCES}
    drawn["adc"] &= drawn["dwi"]
    rank = dict(zip(SEQUENCES, rng.permutation(len(SEQUENCES)).tolist(), strict=True))
    rank["adc"] = rank["dwi"] + 0.5  # the map goes before its series does
    present = [name for name in config.allowed if drawn[name]] or [config.allowed[0]]
    kept = sorted(present, key=rank.__getitem__)[:_MOST_SEQUENCES]
    return tuple(name for name in present if name in kept)


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
    texture = MODEL_GRID.resample(1 + np.float32(_TEXTURE) * smooth_noise(rng, 3.0), grid)
    return texture if tumour is None else texture + signal_texture(tumour, grid)
