"""Protocols A, B and C: how a centre scans, and how one subject was scanned.

Ranges are choices, in the span of clinical and research protocols for brain tumours. A stands for
several centres with 3 T machines and 3-D T1, B for an older machine with thick slices, C for
one with 3-D sequences throughout, less signal and a less even field.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from gliomoe.data_shards.phantom.scanner.equations import null_time
from gliomoe.data_shards.phantom.scanner.tissues import TISSUES, Range

SequenceName = Literal["t1", "t1ce", "t2", "flair", "pd", "dwi", "adc"]

SEQUENCES: tuple[SequenceName, ...] = get_args(SequenceName)
"""All that can be acquired; every protocol has each."""

REFERENCE = "t1"
"""The series during which the patient lies as the session's pose says."""

_SLICE_AXES = (0.08, 0.12, 0.8)
"""How often 2-D series are sagittal, coronal, axial."""

_STORED_2D = {0: ("PSR", "PIR", "ASR"), 1: ("LSA", "RSA", "LSP"), 2: ("LPS", "LAS", "RAS")}
_STORED_3D = ("PSR", "PIR", "ASR", "RAS", "LPS", "LAS")
"""Order of the stored axes."""


@dataclass(frozen=True)
class Timing:
    """Ranges of one kind of series; times in ms, lengths in mm."""

    tr: Range
    te: Range
    ti: Range | None = None
    null: Range | None = None
    """Inversion time relative to the one that nulls CSF; starts with an inversion, as `ti` does."""
    gradient_echo: bool = False
    """An MP-RAGE; otherwise a spin echo."""
    flip: Range = (90.0, 90.0)
    echo_train: tuple[int, int] = (1, 1)
    """Echoes after one excitation, or pulses after one inversion of an MP-RAGE."""
    echo_spacing: Range = (0.0, 0.0)
    b: float = 0.0
    """s/mm2."""
    in_plane: Range = (0.9, 1.0)
    thickness: Range = (1.0, 1.2)
    gap: Range = (0.0, 0.0)
    """Share of the thickness that is left out between slices."""
    volume: bool = True
    """3-D, with slices as fine as the plane; otherwise 2-D."""
    fat_suppressed: float = 0.0
    """Probability."""


@dataclass(frozen=True)
class Protocol:
    """How one kind of centre scans."""

    share_3t: float
    timings: dict[str, tuple[Timing, ...]]
    """Sequence → kinds, equally often."""
    bias: Range
    """Standard deviation of the logarithm of the receive field."""
    snr: Range
    """Of white matter."""
    ghost: float
    """Median amplitude of motion, mm; a tenth of the series has some four times as much."""


_MPRAGE = Timing(
    (2100, 2500),
    (2.5, 4),
    ti=(900, 1100),
    gradient_echo=True,
    flip=(8, 10),
    echo_train=(160, 190),
    echo_spacing=(7.0, 8.5),
)
_SPIN_ECHO = Timing(
    (450, 650), (9, 15), in_plane=(0.8, 1.0), thickness=(4, 5.5), gap=(0, 0.2), volume=False
)
_T2 = Timing(
    (4000, 6000),
    (85, 105),
    echo_train=(10, 18),
    echo_spacing=(8.0, 11.0),
    in_plane=(0.5, 0.9),
    thickness=(2, 4),
    gap=(0, 0.2),
    volume=False,
)
_PD = replace(_T2, tr=(2600, 3600), te=(14, 24), echo_train=(4, 8))
_FLAIR = replace(
    _T2,
    tr=(8500, 10000),
    te=(95, 125),
    null=(0.96, 1.04),
    in_plane=(0.7, 0.95),
    fat_suppressed=0.3,
)
_FLAIR_3D = Timing(
    (6000, 7500), (95, 120), null=(0.96, 1.04), echo_train=(120, 180), echo_spacing=(3.2, 4.0)
)
_DWI = Timing(
    (5000, 8000),
    (65, 85),
    b=1000.0,
    in_plane=(1.4, 2.0),
    thickness=(4, 5.5),
    gap=(0, 0.25),
    volume=False,
    fat_suppressed=1.0,
)
_THICK: Range = (4, 5.5)

PROTOCOLS: dict[str, Protocol] = {
    "A": Protocol(
        share_3t=0.9,
        timings={
            "t1": (_MPRAGE, _MPRAGE, replace(_SPIN_ECHO, thickness=(3, 5))),
            "t1ce": (_MPRAGE,),
            "t2": (_T2,),
            "flair": (_FLAIR, _FLAIR_3D),
            "pd": (_PD,),
            "dwi": (_DWI,),
        },
        bias=(0.03, 0.1),
        snr=(30, 80),
        ghost=0.08,
    ),
    "B": Protocol(
        share_3t=0.1,
        timings={
            "t1": (_SPIN_ECHO,),
            "t1ce": (_SPIN_ECHO,),
            "t2": (replace(_T2, tr=(3000, 4500), te=(100, 125), thickness=_THICK),),
            "flair": (
                replace(
                    _FLAIR, tr=(7500, 9000), te=(115, 140), null=(0.97, 1.06), thickness=_THICK
                ),
            ),
            "pd": (replace(_PD, tr=(2200, 3200), te=(15, 30), thickness=_THICK),),
            "dwi": (replace(_DWI, tr=(4000, 6500), te=(85, 105), in_plane=(1.8, 2.4)),),
        },
        bias=(0.05, 0.12),
        snr=(20, 50),
        ghost=0.14,
    ),
    "C": Protocol(
        share_3t=1.0,
        timings={
            "t1": (replace(_MPRAGE, tr=(1800, 2000), te=(2, 3), echo_spacing=(5.5, 7)),),
            "t1ce": (replace(_SPIN_ECHO, tr=(600, 750), thickness=(3, 4.5)),),
            "t2": (Timing((3600, 4500), (80, 100), echo_train=(120, 180), echo_spacing=(3.2, 4)),),
            "flair": (replace(_FLAIR_3D, tr=(5500, 7000), te=(100, 125), null=(0.96, 1.03)),),
            "pd": (replace(_PD, te=(10, 20), thickness=(3, 4)),),
            "dwi": (replace(_DWI, tr=(6000, 9000), te=(55, 75), thickness=(2, 3)),),
        },
        bias=(0.12, 0.22),
        snr=(15, 30),
        ghost=0.1,
    ),
}
"""A is the one for training; B is older and thicker, C sharper, noisier and less even."""


@dataclass(frozen=True)
class Pose:
    """A rigid motion: a turn about the centre of the head, then a shift."""

    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Rotation vector in degrees, RAS."""
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """mm, RAS."""


@dataclass(frozen=True)
class Acquisition:
    """One series: times in ms, lengths in mm. Raw form alone uses poses and stored order."""

    sequence: str
    field: float
    """Tesla."""
    tr: float
    te: float
    ti: float | None
    gain: float
    """Stored value of white matter, of a diffusion-weighted series at b = 0."""
    gradient_echo: bool = False
    flip: float = 90.0
    """Degrees."""
    echo_train: int = 1
    echo_spacing: float = 0.0
    b: float = 0.0
    """Diffusion weighting, s/mm2; an ADC map comes from a pair at 0 and at this."""
    fat_suppressed: bool = False
    in_plane: float = 0.0
    """Voxel in the plane as acquired; on a coarser body the body's spacing counts."""
    thickness: float = 0.0
    """Slice, full width at half maximum; on a coarser body the body's spacing counts."""
    gap: float = 0.0
    """Between slices."""
    volume: bool = True
    """Whether the whole head is encoded as one volume, not slice by slice."""
    slice_axis: int = 2
    """0 sagittal, 1 coronal, 2 axial."""
    phase_axis: int = 0
    """Axis of phase encoding, in the plane."""
    phase_resolution: float = 1.0
    """Share of k-space that is acquired along the phase axis: below 1 edges ring."""
    ghost: float = 0.0
    """Amplitude of periodic motion along the phase axis, mm."""
    ghost_period: float = 16.0
    """Lines of k-space in one period of motion."""
    bias: float = 0.0
    """Standard deviation of the logarithm of the receive field."""
    transmit: float = 0.0
    """Relative gain of signal in the middle of the head by the uneven transmit field."""
    snr: float = float("inf")
    """Of white matter in the voxel as drawn; larger voxels of a coarse body have more."""
    slice_offset: float = 0.0
    """Place of the slices, as a share of their distance."""
    misregistration: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """What registration left, mm; the preprocessed form has it, the raw has motion instead."""
    session: Pose = Pose()
    """How the head lay in the scanner when the session was planned."""
    oblique: Pose = Pose()
    """How the slices lie to the planned head."""
    motion: Pose = Pose()
    """What the patient moved between planning and this series."""
    stored: str = "RAS"
    """Order and direction of the stored axes."""


def draw_session(protocol: str, rng: np.random.Generator) -> dict[str, Acquisition]:
    """How one subject is scanned: every sequence of a protocol, on one machine.

    DWI and ADC are two results of one series: all their fields but sequence and gain are equal.
    """
    centre = PROTOCOLS[protocol]
    strength = 3.0 if rng.random() < centre.share_3t else 1.5
    lying = Pose(_three(rng, (5.0, 3.0, 4.0)), _three(rng, 5.0))
    session = {
        sequence: _draw_series(centre, sequence, strength, lying, rng)
        for sequence in centre.timings
    }
    session["adc"] = replace(session["dwi"], sequence="adc")
    return session


def cleaned(acquisition: Acquisition) -> Acquisition:
    """The same contrast without noise, bias, ringing, motion or thick slices."""
    return replace(
        acquisition,
        in_plane=0.0,
        thickness=0.0,
        gap=0.0,
        phase_resolution=1.0,
        ghost=0.0,
        bias=0.0,
        transmit=0.0,
        snr=float("inf"),
        slice_offset=0.0,
        misregistration=(0.0, 0.0, 0.0),
        motion=Pose(),
    )


def _draw_series(
    centre: Protocol, sequence: str, strength: float, lying: Pose, rng: np.random.Generator
) -> Acquisition:
    """One series of a session."""
    kinds = centre.timings[sequence]
    kind = kinds[int(rng.integers(len(kinds)))]
    tr, te = rng.uniform(*kind.tr), rng.uniform(*kind.te)
    echoes = int(rng.integers(*kind.echo_train, endpoint=True))
    spacing = rng.uniform(*kind.echo_spacing)
    ti = rng.uniform(*kind.ti) if kind.ti else None
    if kind.null:
        train = max(echoes * spacing, te)
        t1 = TISSUES["csf"].t1[strength == 3.0]
        ti = rng.uniform(*kind.null) * null_time(t1, tr, train)
    thickness = rng.uniform(*kind.thickness)
    slice_axis = 0 if kind.volume else int(rng.choice(3, p=_SLICE_AXES))
    if sequence == "dwi":
        slice_axis = 2
    phase_axis = int(rng.choice([axis for axis in range(3) if axis != slice_axis]))
    stored = _STORED_3D if kind.volume else _STORED_2D[slice_axis]
    moved = sequence != REFERENCE
    return Acquisition(
        sequence=sequence,
        field=strength,
        tr=tr,
        te=te,
        ti=ti,
        gain=rng.uniform(150, 1500),
        gradient_echo=kind.gradient_echo,
        flip=rng.uniform(*kind.flip),
        echo_train=echoes,
        echo_spacing=spacing,
        b=kind.b,
        fat_suppressed=bool(rng.random() < kind.fat_suppressed),
        in_plane=rng.uniform(*kind.in_plane),
        thickness=thickness,
        gap=thickness * rng.uniform(*kind.gap),
        volume=kind.volume,
        slice_axis=slice_axis,
        phase_axis=phase_axis,
        phase_resolution=rng.uniform(0.65, 1.0),
        ghost=float(min(centre.ghost * rng.lognormal(0, 1.1), 1.5)),
        ghost_period=rng.uniform(4, 24),
        bias=rng.uniform(*centre.bias),
        transmit=rng.uniform(0.0, 0.2 if strength == 3.0 else 0.05),
        snr=rng.uniform(*centre.snr),
        slice_offset=rng.random(),
        misregistration=_three(rng, 0.2),
        session=lying,
        oblique=Pose(_three(rng, 0.5 if kind.volume else 3.0), _three(rng, 3.0)),
        motion=Pose(_three(rng, 1.0), _three(rng, 1.2)) if moved else Pose(),
        stored=str(rng.choice(stored)),
    )


def _three(
    rng: np.random.Generator, spread: float | tuple[float, float, float]
) -> tuple[float, float, float]:
    """Three normal values, cut at 2.5 standard deviations."""
    x, y, z = np.clip(rng.standard_normal(3), -2.5, 2.5) * spread
    return float(x), float(y), float(z)
