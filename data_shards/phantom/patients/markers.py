"""Glioma types after WHO 2021: how often, at what age, with which markers.

The type fixes IDH and 1p/19q by definition; grade, TERT, age and sex are drawn, and with type,
grade and TERT every imaging trait (`looks.py`). Only traits reach the images, never a marker.

Sources: shares of types, TCGA's diffuse gliomas (Ceccarelli et al., Cell 2016), rounded. TERT:
Eckel-Passow et al., NEJM 2015. Of their grade IV gliomas 74 % had TERT alone and 17 % nothing,
2 % TERT with IDH and 7 % IDH alone; of grade II and III 5 % TERT with IDH and 45 % IDH alone.
Ages: their means were 37 years with IDH alone, the lowest of five groups, and 59 with TERT alone,
the highest; those of the other groups, all standard deviations, and the shares of grades and sexes
are chosen between and near these.
"""

from dataclasses import dataclass

import numpy as np

from gliomoe.data_shards.phantom.patients.looks import LOOKS, State
from gliomoe.data_shards.phantom.patients.traits import Bernoulli, Categorical, Normal, Rounded


@dataclass(frozen=True)
class GliomaType:
    """One entity of WHO 2021, adult type."""

    share: float
    idh: str
    codeletion: str
    grades: dict[int, float]
    """Grade → probability."""
    tert: dict[int, float]
    """Grade → probability of a TERT promoter mutation."""
    age: dict[tuple[int, str], tuple[float, float]]
    """Grade and TERT status → mean and standard deviation in years, before the cut."""
    male: float


def _ages(means: dict[int, float], sd: float) -> dict[tuple[int, str], tuple[float, float]]:
    """Ages that do not depend on TERT."""
    return {
        (grade, tert): (mean, sd)
        for grade, mean in means.items()
        for tert in ("mutant", "wildtype")
    }


GLIOMA_TYPES: dict[str, GliomaType] = {
    "glioblastoma": GliomaType(
        share=0.5,
        idh="wildtype",
        codeletion="intact",
        grades={4: 1.0},
        tert={4: 0.81},
        age={(4, "mutant"): (60, 15), (4, "wildtype"): (48, 16)},
        male=0.6,
    ),
    "astrocytoma": GliomaType(
        share=0.3,
        idh="mutant",
        codeletion="intact",
        grades={2: 0.4, 3: 0.4, 4: 0.2},
        tert={2: 0.1, 3: 0.1, 4: 0.2},
        age=_ages({2: 32, 3: 35, 4: 41}, 14),
        male=0.56,
    ),
    "oligodendroglioma": GliomaType(
        share=0.2,
        idh="mutant",
        codeletion="codeleted",
        grades={2: 0.55, 3: 0.45},
        tert={2: 0.96, 3: 0.96},
        age=_ages({2: 44, 3: 49}, 13),
        male=0.54,
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


def state_shares() -> dict[State, float]:
    """State (type, grade, TERT) → its share of all gliomas; the prior of every posterior."""
    shares = {}
    for who_type, kind in GLIOMA_TYPES.items():
        for grade, share in kind.grades.items():
            for tert, chance in (("mutant", kind.tert[grade]), ("wildtype", 1 - kind.tert[grade])):
                shares[who_type, grade, tert] = kind.share * share * chance
    return shares


def age_of(state: State) -> Rounded:
    """Whole years, 18 to 89."""
    who_type, grade, tert = state
    return Rounded(Normal(*GLIOMA_TYPES[who_type].age[grade, tert], 17.5, 89.5))


def male_of(state: State) -> Bernoulli:
    """Whether the patient is a man."""
    return Bernoulli(GLIOMA_TYPES[state[0]].male)


def draw_type(place: float) -> str:
    """The type at a place in 0 to 1 of the cumulated shares."""
    edges = np.cumsum([kind.share for kind in GLIOMA_TYPES.values()])
    return list(GLIOMA_TYPES)[min(int(np.searchsorted(edges, place, side="right")), 2)]


def draw_glioma(
    who_type: str, rng: np.random.Generator, resected: float = 0.0
) -> tuple[Glioma, int, str]:
    """A tumour of a type with the patient it befalls.

    Args:
        who_type: A key of `GLIOMA_TYPES`.
        rng: Source of every draw.
        resected: Probability that part of the tumour was taken out; no marker changes it.

    Returns:
        The tumour, the patient's age in years and sex (`M` or `F`).
    """
    kind = GLIOMA_TYPES[who_type]
    grade = int(Categorical(kind.grades).draw(rng))
    tert = "mutant" if Bernoulli(kind.tert[grade]).draw(rng) else "wildtype"
    state = (who_type, grade, tert)
    age = int(age_of(state).draw(rng))
    sex = "M" if male_of(state).draw(rng) else "F"
    operated = bool(Bernoulli(resected).draw(rng))
    traits = {name: np.asarray(value).item() for name, value in LOOKS[state].draw(rng).items()}
    glioma = Glioma(
        who_type=who_type,
        grade=grade,
        idh=kind.idh,
        codeletion=kind.codeletion,
        tert=tert,
        resected=operated,
        **traits,
    )
    return glioma, age, sex
