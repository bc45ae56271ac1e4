"""From tissue to image: relaxation times, signal equations, protocols and what scanners add.

Sources. Grey and white matter: 1.5 T and proton densities, BrainWeb (Kwan et al., IEEE TMI 1999);
3 T, Wansapura et al., JMRI 1999. CSF: Rooney et al., MRM 2007. T1 of tumour and oedema: in the
range of de Blank et al., J Neurosurg Pediatr 2019; their T2 are chosen so that T2 and FLAIR show
the usual picture. Relaxivity of gadolinium: Rohrer et al., Invest Radiol 2005.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from gliomoe.data_shards.phantom.grid import WARP_GRID, Grid, smooth_noise

Range = tuple[float, float]


@dataclass(frozen=True)
class Tissue:
    """Relaxation of one tissue; times in ms, first at 1.5 T, then at 3 T."""

    t1: tuple[float, float]
    t2: tuple[float, float]
    density: float
    """Protons, of water's."""
    gadolinium: Range = (0.0, 0.03)
    """mmol/l after contrast agent."""
    spread: float = 0.03
    """Relative spread of T1 and T2 between subjects."""


TISSUES: dict[str, Tissue] = {
    "gm": Tissue((833, 1331), (83, 110), 0.86),
    "wm": Tissue((500, 832), (70, 80), 0.77),
    "csf": Tissue((4000, 4100), (1800, 1800), 1.0),
    "vessel": Tissue((1400, 1650), (40, 30), 0.6, (1.0, 2.0)),
    "oedema": Tissue((1050, 1450), (170, 180), 0.9, spread=0.06),
    "solid": Tissue((1250, 1650), (170, 180), 0.9, (0.0, 0.05), spread=0.06),
    "mismatch": Tissue((2100, 2300), (190, 200), 0.95, spread=0.06),
    "enhancing": Tissue((1150, 1550), (145, 155), 0.9, (0.3, 0.7), spread=0.06),
    "necrosis": Tissue((2000, 2400), (250, 260), 0.95, (0.0, 0.05), spread=0.1),
    "calcification": Tissue((700, 900), (35, 30), 0.3, spread=0.1),
    "lesion": Tissue((950, 1350), (160, 170), 0.9, spread=0.06),
    "infarct": Tissue((1400, 1800), (200, 210), 0.93, spread=0.1),
    "cavity": Tissue((3000, 3300), (700, 750), 0.98, spread=0.1),
}

_RELAXIVITY = (4.1, 3.7)
"""Of Gd-DTPA in plasma, l/(mmol s)."""


@dataclass(frozen=True)
class Timing:
    """Ranges of one sequence's times, ms; with `ti` or `null` it starts with an inversion."""

    tr: Range
    te: Range
    ti: Range | None = None
    null: Range | None = None
    """Inversion time relative to the one that nulls CSF."""
    thickness: Range = (1.0, 1.2)
    """Slice, mm."""


@dataclass(frozen=True)
class Protocol:
    """How one kind of centre scans."""

    share_3t: float
    timings: dict[str, Timing]
    bias: Range
    """Standard deviation of the logarithm of the receive field."""
    snr: Range
    """Of white matter."""


_MPRAGE = Timing((2100, 2500), (2.5, 4), ti=(1000, 1150))
_SPIN_ECHO = Timing((450, 650), (9, 15), thickness=(4, 6.5))

PROTOCOLS: dict[str, Protocol] = {
    "A": Protocol(
        0.9,
        {
            "t1": _MPRAGE,
            "t1ce": _MPRAGE,
            "t2": Timing((4000, 6000), (85, 105), thickness=(2, 4)),
            "flair": Timing((8500, 10000), (95, 125), null=(0.98, 1.06), thickness=(2, 4)),
        },
        bias=(0.03, 0.1),
        snr=(25, 50),
    ),
    "B": Protocol(
        0.1,
        {
            "t1": _SPIN_ECHO,
            "t1ce": _SPIN_ECHO,
            "t2": Timing((3000, 4500), (100, 125), thickness=(4, 6.5)),
            "flair": Timing((7500, 9000), (115, 140), null=(1.0, 1.12), thickness=(4, 6.5)),
        },
        bias=(0.05, 0.12),
        snr=(15, 30),
    ),
    "C": Protocol(
        1.0,
        {
            "t1": Timing((1800, 2000), (2, 3), ti=(930, 1030)),
            "t1ce": Timing((600, 750), (9, 13), thickness=(3, 5)),
            "t2": Timing((3800, 5000), (75, 90)),
            "flair": Timing((5000, 6500), (85, 100), null=(0.94, 1.02)),
        },
        bias=(0.12, 0.22),
        snr=(15, 28),
    ),
}
"""A is the one for training; B is older and thicker, C sharper, noisier and less even."""


@dataclass(frozen=True)
class Acquisition:
    """One series: times in ms, thickness in mm."""

    sequence: str
    field: float
    """Tesla."""
    tr: float
    te: float
    ti: float | None
    thickness: float
    slice_axis: int
    bias: float
    snr: float
    gain: float
    """Stored value of white matter."""


def draw_session(protocol: str, rng: np.random.Generator) -> dict[str, Acquisition]:
    """How one subject is scanned: every sequence of a protocol, on one machine."""
    centre = PROTOCOLS[protocol]
    field = 3.0 if rng.random() < centre.share_3t else 1.5
    session = {}
    for sequence, timing in centre.timings.items():
        tr, te = rng.uniform(*timing.tr), rng.uniform(*timing.te)
        ti = rng.uniform(*timing.ti) if timing.ti else None
        if timing.null:
            ti = rng.uniform(*timing.null) * _null_time(TISSUES["csf"].t1[field == 3.0], tr)
        session[sequence] = Acquisition(
            sequence=sequence,
            field=field,
            tr=tr,
            te=te,
            ti=ti,
            thickness=rng.uniform(*timing.thickness),
            slice_axis=int(rng.choice(3, p=(0.1, 0.1, 0.8))),
            bias=rng.uniform(*centre.bias),
            snr=rng.uniform(*centre.snr),
            gain=rng.uniform(150, 1500),
        )
    return session


def draw_relaxation(field: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A subject's tissues: name → T1 in ms, T2 in ms, proton density, gadolinium in mmol/l."""
    strong = int(field == 3.0)
    return {
        name: np.array(
            [
                tissue.t1[strong] * rng.normal(1, tissue.spread),
                tissue.t2[strong] * rng.normal(1, tissue.spread),
                tissue.density,
                rng.uniform(*tissue.gadolinium),
            ]
        )
        for name, tissue in TISSUES.items()
    }


def signal(
    acquisition: Acquisition, t1: float, t2: float, density: float, gadolinium: float
) -> float:
    """Magnitude of the steady-state signal of a spin or inversion-recovery spin echo.

    Args:
        acquisition: The series; `t1ce` is the only one in which the agent counts.
        t1: ms, without agent.
        t2: ms.
        density: Of water's.
        gadolinium: mmol/l.
    """
    if acquisition.sequence == "t1ce":
        t1 = 1000 / (1000 / t1 + _RELAXIVITY[acquisition.field == 3.0] * gadolinium)
    recovered = np.exp(-acquisition.tr / t1)
    if acquisition.ti is None:
        along = 1 - recovered
    else:
        along = 1 - 2 * np.exp(-acquisition.ti / t1) + recovered
    return float(density * abs(along) * np.exp(-acquisition.te / t2))


def scan(
    shares: dict[str, np.ndarray],
    relaxation: dict[str, np.ndarray],
    texture: np.ndarray,
    acquisition: Acquisition,
    grid: Grid,
    rng: np.random.Generator,
) -> np.ndarray:
    """One series of a head without its skull.

    Args:
        shares: Tissue → [D, H, W] share.
        relaxation: Tissue → what `draw_relaxation` gave.
        texture: [D, H, W] factor of the signal, about 1.
        acquisition: How it is scanned.
        grid: The grid of all these arrays.
        rng: Source of bias field and noise.

    Returns:
        [D, H, W] int16, 0 outside the brain and at least 1 in it.
    """
    white = signal(acquisition, *relaxation["wm"])
    image, total = np.zeros((2, *grid.shape), np.float32)
    for tissue, share in shares.items():
        image += share * np.float32(signal(acquisition, *relaxation[tissue]) / white)
        total += share
    image *= texture
    brain = total > 0.5
    blur = np.sqrt(max(acquisition.thickness**2 - grid.spacing**2, 0)) / 2.355 / grid.spacing
    if blur > 0:  # within the brain only: its edge must not fade into the removed skull
        inside = ndimage.gaussian_filter1d(brain.astype(np.float32), blur, acquisition.slice_axis)
        image = ndimage.gaussian_filter1d(image, blur, acquisition.slice_axis)
        image /= np.maximum(inside, np.float32(0.1))
    field = WARP_GRID.resample(smooth_noise(rng, 36.0, grid=WARP_GRID), grid)
    image *= np.exp(np.float32(acquisition.bias) * field)
    sigma = np.float32(1 / acquisition.snr)
    real, imaginary = sigma * rng.standard_normal((2, *grid.shape), np.float32)
    image = np.sqrt((image + real) ** 2 + imaginary**2)
    stored = np.clip(np.rint(image * np.float32(acquisition.gain)), 1, 32767)
    return np.where(brain, stored, 0).astype(np.int16)


def _null_time(t1: float, tr: float) -> float:
    """Inversion time at which a tissue gives no signal, ms."""
    return t1 * np.log(2 / (1 + np.exp(-tr / t1)))
