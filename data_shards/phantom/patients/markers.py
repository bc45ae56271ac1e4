"""Glioma types after WHO 2021: how often, at what age, with which markers and which look.

Notable: the type fixes IDH and 1p/19q by definition; TERT, grade and all imaging traits are drawn
with published, imperfect frequencies. Only traits reach the images, never a marker itself.

Sources: shares of types, TCGA's diffuse gliomas (Ceccarelli et al., Cell 2016), rounded. TERT and
ages, Eckel-Passow et al., NEJM 2015. T2-FLAIR mismatch, Patel et al., Clin Cancer Res 2017.
Calcification and site of oligodendroglioma, Smits, Biomedicines 2016. Enhancement and necrosis,
the WHO definitions and Lasocki et al., AJNR 2018.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GliomaType:
    """One entity of WHO 2021, adult type."""

    share: float
    idh: str
    codeletion: str
    tert_mutant: float
    """Probability."""
    grades: dict[int, float]
    """Grade → probability."""
    age: dict[int, tuple[float, float]]
    """Grade → mean and standard deviation in years."""
    male: float
    mismatch: float
    """Probability of the T2-FLAIR mismatch sign, of tumours without much enhancement."""
    calcified: float
    cortical: float
    lobes: dict[str, float]
    enhancing: dict[int, float]
    """Grade → probability of any enhancement."""
    ring: float
    """Probability that enhancement is a ring around necrosis, the rest is patchy."""
    sharp: float
    """Probability of a well-defined border."""
    oedema_mm: tuple[float, float]
    """Mean and standard deviation of how far oedema reaches, mm."""


GLIOMA_TYPES: dict[str, GliomaType] = {
    "glioblastoma": GliomaType(
        share=0.5,
        idh="wildtype",
        codeletion="intact",
        tert_mutant=0.8,
        grades={4: 1.0},
        age={4: (61.0, 11.0)},
        male=0.6,
        mismatch=0.0,
        calcified=0.04,
        cortical=0.3,
        lobes={
            "frontal": 0.27,
            "temporal": 0.33,
            "parietal": 0.24,
            "occipital": 0.1,
            "insula": 0.06,
        },
        enhancing={4: 0.92},
        ring=0.82,
        sharp=0.2,
        oedema_mm=(19.0, 8.0),
    ),
    "astrocytoma": GliomaType(
        share=0.3,
        idh="mutant",
        codeletion="intact",
        tert_mutant=0.07,
        grades={2: 0.4, 3: 0.4, 4: 0.2},
        age={2: (37.0, 10.0), 3: (39.0, 11.0), 4: (43.0, 12.0)},
        male=0.56,
        mismatch=0.55,
        calcified=0.05,
        cortical=0.35,
        lobes={"frontal": 0.48, "temporal": 0.3, "parietal": 0.1, "occipital": 0.02, "insula": 0.1},
        enhancing={2: 0.1, 3: 0.35, 4: 0.8},
        ring=0.45,
        sharp=0.7,
        oedema_mm=(7.0, 4.0),
    ),
    "oligodendroglioma": GliomaType(
        share=0.2,
        idh="mutant",
        codeletion="codeleted",
        tert_mutant=0.96,
        grades={2: 0.55, 3: 0.45},
        age={2: (43.0, 11.0), 3: (48.0, 12.0)},
        male=0.54,
        mismatch=0.03,
        calcified=0.65,
        cortical=0.88,
        lobes={
            "frontal": 0.68,
            "temporal": 0.14,
            "parietal": 0.12,
            "occipital": 0.01,
            "insula": 0.05,
        },
        enhancing={2: 0.2, 3: 0.55},
        ring=0.03,
        sharp=0.35,
        oedema_mm=(5.0, 3.0),
    ),
}


@dataclass(frozen=True)
class Glioma:
    """One tumour: what the label table says, and the traits that the images show."""

    who_type: str
    grade: int
    idh: str
    codeletion: str
    tert: str
    lobe: str
    cortical: bool
    core_ml: float
    """Volume of the solid tumour with its necrosis."""
    infiltration_mm: float
    """Width of the invading front, the root of diffusivity over proliferation rate."""
    enhancement: str
    """`ring`, `patchy` or `none`."""
    rim_mm: float
    """Thickness of the living rim around necrosis; meaningless without a ring."""
    oedema_mm: float
    mismatch: bool
    calcified: bool
    texture: float
    """Relative spread of the signal inside the tumour."""
    satellites: int = 0
    """Separate foci of 3 to 5 mm."""
    resected: bool = False
    """Whether part of the core was taken out: the scan is post-operative, with a cavity."""


def draw_type(place: float) -> str:
    """The type at a place in 0 to 1 of the cumulated shares."""
    edges = np.cumsum([kind.share for kind in GLIOMA_TYPES.values()])
    return list(GLIOMA_TYPES)[min(int(np.searchsorted(edges, place, side="right")), 2)]


def draw_glioma(who_type: str, rng: np.random.Generator) -> tuple[Glioma, int, str]:
    """A tumour of a type with the patient it befalls.

    Args:
        who_type: A key of `GLIOMA_TYPES`.
        rng: Source of every draw.

    Returns:
        The tumour, the patient's age in years and sex (`M` or `F`).
    """
    kind = GLIOMA_TYPES[who_type]
    grade = int(rng.choice(list(kind.grades), p=list(kind.grades.values())))
    age = int(np.clip(rng.normal(*kind.age[grade]), 18, 89))
    tert = rng.random() < kind.tert_mutant
    enhancement = "none"
    if rng.random() < kind.enhancing[grade]:
        ring = rng.random() < (kind.ring if grade == 4 else 0.3 * kind.ring)
        enhancement = "ring" if ring else "patchy"
    # TERT-mutant tumours show more necrosis and thicker, less even rims (Yamashita 2019): a
    # modest shift, which type and site outweigh.
    rim_mm = np.clip(rng.normal(5.0 + 1.5 * tert * (grade == 4), 1.2), 3.5, 9)
    glioma = Glioma(
        who_type=who_type,
        grade=grade,
        idh=kind.idh,
        codeletion=kind.codeletion,
        tert="mutant" if tert else "wildtype",
        lobe=str(rng.choice(list(kind.lobes), p=list(kind.lobes.values()))),
        cortical=bool(rng.random() < kind.cortical),
        core_ml=float(np.clip(rng.lognormal(np.log(35), 0.55), 8, 110)),
        infiltration_mm=float(rng.uniform(1.8, 2.4) + (rng.random() > kind.sharp) * 1.3),
        enhancement=enhancement,
        rim_mm=float(rim_mm),
        oedema_mm=float(np.clip(rng.normal(*kind.oedema_mm) + 4 * tert * (grade == 4), 0, 32)),
        mismatch=bool(enhancement == "none" and rng.random() < kind.mismatch),
        calcified=bool(rng.random() < kind.calcified),
        texture=float(rng.uniform(0.04, 0.08) + 0.06 * (rng.random() > kind.sharp)),
    )
    return glioma, age, "M" if rng.random() < kind.male else "F"
