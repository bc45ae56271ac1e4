"""Relaxation, proton density, diffusion and uptake of contrast agent of every tissue.

Sources. Grey and white matter: 1.5 T and proton densities, BrainWeb (Kwan et al., IEEE TMI 1999);
3 T, Wansapura et al., JMRI 1999. T1 of CSF: Rooney et al., MRM 2007. Muscle: Stanisz et al., MRM
2005. Fat and marrow: de Bazelaire et al., Radiology 2004; their T2 is longer here, because echo
trains show fat brighter than its T2 says (Henkelman et al., JMRI 1992). Relaxivity of gadolinium:
Rohrer et al., Invest Radiol 2005. Diffusion of healthy brain: Helenius et al., AJNR 2002.

Values of dura, tumour, oedema, cavity, lesion and infarct are choices: near T1 as de Blank et al.
(J Neurosurg Pediatr 2019) measured and diffusion as Kono et al. (AJNR 2001) did, then set, with
their spread, so that the ratios of each part to the brain fill the range seen in public glioma
images. So are vessels, eyes, skull (only its darkness counts), every spread, and densities and
diffusion outside the brain.
"""

from dataclasses import dataclass

import numpy as np

Range = tuple[float, float]

RELAXIVITY = (4.1, 3.7)
"""T1 relaxivity of Gd-DTPA in plasma at 1.5 T and at 3 T, l/(mmol s)."""

RELAXIVITY_T2 = (4.6, 5.2)
"""T2 relaxivity of the same, l/(mmol s)."""

LEAKY = ("enhancing", "solid", "mismatch", "necrosis")
"""Tissues whose gadolinium follows the tumour's leakage and its map."""

FATTY = ("scalp_fat", "marrow")
"""What fat suppression takes away."""

_SHARED_WATER = 0.8
"""Correlation of the deviations of T1, T2 and diffusion of a tissue: more water raises all."""


@dataclass(frozen=True)
class Tissue:
    """One tissue; times in ms, first at 1.5 T, then at 3 T."""

    t1: tuple[float, float]
    t2: tuple[float, float]
    density: float
    """Protons, of water's."""
    adc: float
    """Apparent diffusion coefficient, 10^-3 mm2/s."""
    gadolinium: Range = (0.0, 0.03)
    """mmol/l after contrast agent."""
    spread: tuple[float, float, float] = (0.03, 0.03, 0.03)
    """Standard deviation of the logarithm of T1, T2 and diffusion between subjects."""


@dataclass(frozen=True)
class Relaxation:
    """One tissue of one subject at one field."""

    t1: float
    """ms, without contrast agent."""
    t2: float
    """ms, without contrast agent."""
    density: float
    """Protons, of water's."""
    adc: float
    """10^-3 mm2/s."""
    gadolinium: float
    """mmol/l after contrast agent."""


TISSUES: dict[str, Tissue] = {
    "gm": Tissue((833, 1331), (83, 110), 0.86, 0.85),
    "wm": Tissue((500, 832), (70, 80), 0.77, 0.73),
    "csf": Tissue((4300, 4300), (1800, 1800), 1.0, 3.0),
    "vessel": Tissue((1400, 1650), (40, 30), 0.8, 1.5, (0.8, 2.0)),
    "dura": Tissue((900, 1200), (30, 27), 0.65, 0.8, (0.2, 0.7), (0.1, 0.15, 0.1)),
    "oedema": Tissue((950, 1340), (134, 160), 0.88, 1.4, spread=(0.1, 0.15, 0.12)),
    "solid": Tissue((1150, 1510), (146, 178), 0.88, 1.25, (0.0, 0.05), (0.13, 0.17, 0.12)),
    "mismatch": Tissue((2000, 2250), (175, 185), 0.95, 1.9, (0.0, 0.02), (0.04, 0.08, 0.08)),
    "enhancing": Tissue((1060, 1370), (120, 142), 0.87, 1.1, (0.1, 0.5), (0.1, 0.14, 0.12)),
    "necrosis": Tissue((1500, 1850), (190, 218), 0.93, 1.9, (0.0, 0.06), (0.18, 0.22, 0.2)),
    "cavity": Tissue((3000, 3200), (900, 900), 0.99, 2.7, (0.0, 0.03), (0.12, 0.25, 0.05)),
    "calcification": Tissue((700, 900), (35, 30), 0.3, 0.8, spread=(0.15, 0.2, 0.1)),
    "lesion": Tissue((900, 1300), (150, 160), 0.88, 1.15, spread=(0.08, 0.12, 0.1)),
    "infarct": Tissue((1050, 1450), (145, 160), 0.9, 0.48, (0.0, 0.1), (0.1, 0.15, 0.15)),
    "scalp_fat": Tissue((343, 382), (110, 120), 0.8, 0.1, spread=(0.05, 0.1, 0.1)),
    "muscle": Tissue((1008, 1412), (44, 50), 0.85, 1.4, (0.1, 0.2)),
    "skull": Tissue((250, 250), (1, 1), 0.2, 0.1, (0.0, 0.0)),
    "marrow": Tissue((549, 586), (80, 80), 0.6, 0.2, (0.02, 0.1), (0.1, 0.1, 0.1)),
    "eye": Tissue((4000, 4000), (1200, 1200), 1.0, 2.8, (0.0, 0.0)),
}


def draw_relaxation(
    field: float, rng: np.random.Generator, leakage: float = 1.0
) -> dict[str, Relaxation]:
    """A subject's tissues.

    Args:
        field: Tesla; 3 stands for the second value of a tissue, everything else for the first.
        rng: Source of the deviations from the mean person.
        leakage: Factor of the gadolinium in tumour tissue.
    """
    strong = int(field == 3.0)
    tissues = {}
    for name, tissue in TISSUES.items():
        water, *own = np.clip(rng.standard_normal(4), -2.2, 2.2)
        deviations = _SHARED_WATER * water + np.sqrt(1 - _SHARED_WATER**2) * np.array(own)
        t1, t2, adc = np.exp(np.array(tissue.spread) * deviations)
        gadolinium = rng.uniform(*tissue.gadolinium) * (leakage if name in LEAKY else 1.0)
        tissues[name] = Relaxation(
            t1=float(tissue.t1[strong] * t1),
            t2=float(tissue.t2[strong] * t2),
            density=tissue.density,
            adc=float(tissue.adc * adc),
            gadolinium=float(gadolinium),
        )
    return tissues
