"""How gliomas look: the distribution of every imaging trait for each type, grade and TERT status.

The traits are independent given type, grade and TERT, but for two: the T2-FLAIR mismatch sign
needs a tumour without enhancement, and the rim is only there with a ring.

Sources. T2-FLAIR mismatch: Patel et al., Clin Cancer Res 2017 (specificity near 100 %), and the
meta-analysis of Park et al., Eur Radiol 2021 (sensitivity 42 % in grades 2 and 3). Frontal and
cortical site and calcification of oligodendroglioma: Smits, Br J Radiol 2016. Its border,
indistinct in 92 % against 45 %, and its uneven signal: Johnson et al., AJNR 2017. More necrosis in
TERT-mutant glioblastoma: Yamashita et al., Diagn Interv Imaging 2019, and Shu et al., Cancer Med
2018; Ersoy et al. (2017) found no sign of it at all.

All else is chosen: the direction is that of clinical experience, the size such that the Bayes
ceiling of each marker (`ceiling.py`) lies between 0.85 and 0.97. In particular the effect of TERT
within glioblastoma (ring, rim, oedema; AUC 0.89 there) is larger than that of any single sign
published, and at the upper end of radiomics (0.82 on the test cases of Chen et al., Front Neurol
2023). Without it, the ceiling of TERT would be 0.78.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

from gliomoe.data_shards.phantom.patients.traits import (
    Bernoulli,
    Categorical,
    Distribution,
    LogNormal,
    Normal,
    Value,
)

State = tuple[str, int, str]
"""WHO type, grade, TERT status (`mutant` or `wildtype`)."""


@dataclass(frozen=True)
class Look:
    """The distributions of one state's traits; names and units are those of `Glioma`."""

    lobe: Distribution
    cortical: Distribution
    core_ml: Distribution
    infiltration_mm: Distribution
    enhancement: Distribution
    rim_mm: Distribution
    """Counts in the density where enhancement is a ring; elsewhere it shows nowhere."""
    oedema_mm: Distribution
    mismatch: Distribution
    """Of tumours without enhancement; with it there is none."""
    calcified: Distribution
    texture: Distribution
    satellites: Distribution

    def draw(self, rng: np.random.Generator, size: int | None = None) -> dict[str, Value]:
        """Trait → one draw, or [size] of them."""
        traits = {name: getattr(self, name).draw(rng, size) for name in TRAITS}
        traits["mismatch"] = traits["mismatch"] & (traits["enhancement"] == "none")
        return traits

    def log_density(self, traits: dict[str, Value]) -> np.ndarray:
        """[N] log density of all traits together.

        Args:
            traits: Trait → [N] values.
        """
        total = np.zeros(np.shape(traits["lobe"]))
        enhancement = np.asarray(traits["enhancement"])
        # log P(sign absent) is 0 with enhancement: there the sign is impossible, not unseen.
        counted = {"rim_mm": enhancement == "ring", "mismatch": enhancement == "none"}
        for name in TRAITS:
            log = getattr(self, name).log_density(traits[name])
            total += np.where(counted.get(name, True), log, 0)
        return total


TRAITS = tuple(field.name for field in fields(Look))
"""Names of the imaging traits."""

TRAIT_DESCRIPTIONS: dict[str, dict[str, str]] = {
    "lobe": {"Description": "Where the tumour began"},
    "cortical": {"Description": "1 if it began at the cortex, 0 deep in white matter"},
    "core_ml": {"Description": "Solid tumour with its necrosis", "Units": "ml"},
    "infiltration_mm": {"Description": "Width of the invading front", "Units": "mm"},
    "enhancement": {"Description": "none, patchy, or a ring around necrosis"},
    "rim_mm": {"Description": "Thickness of the ring; n/a without one", "Units": "mm"},
    "oedema_mm": {"Description": "Reach of oedema beyond the core", "Units": "mm"},
    "mismatch": {"Description": "1 if it shows the T2-FLAIR mismatch sign"},
    "calcified": {"Description": "1 if it is calcified"},
    "texture": {"Description": "Relative spread of the signal inside the tumour"},
    "satellites": {"Description": "Number of separate small foci"},
}
"""Columns of a table of traits, as BIDS wants them."""


def _lobes(
    frontal: float, temporal: float, parietal: float, occipital: float, insula: float
) -> Categorical:
    return Categorical(
        {
            "frontal": frontal,
            "temporal": temporal,
            "parietal": parietal,
            "occipital": occipital,
            "insula": insula,
        }
    )


def _enhancement(none: float, patchy: float, ring: float) -> Categorical:
    return Categorical({"none": none, "patchy": patchy, "ring": ring})


def _foci(*shares: float) -> Categorical:
    """Shares of 0, 1, 2, ... satellites."""
    return Categorical(dict(enumerate(shares)))


def _core(median: float) -> LogNormal:
    return LogNormal(median, 0.55, 8, 140)


def _front(median: float) -> LogNormal:
    return LogNormal(median, 0.17, 1.5, 4.2)


def _rim(mean: float) -> Normal:
    return Normal(mean, 1.3, 3, 11)


def _oedema(mean: float, sd: float) -> Normal:
    return Normal(mean, sd, 0, 32)


def _texture(median: float) -> LogNormal:
    return LogNormal(median, 0.35, 0.025, 0.2)


_GLIOBLASTOMA = Look(
    lobe=_lobes(0.27, 0.33, 0.24, 0.09, 0.07),
    cortical=Bernoulli(0.35),
    core_ml=_core(46),
    infiltration_mm=_front(2.6),
    enhancement=_enhancement(0.07, 0.13, 0.8),
    rim_mm=_rim(6.6),
    oedema_mm=_oedema(18, 7),
    mismatch=Bernoulli(0.01),
    calcified=Bernoulli(0.05),
    texture=_texture(0.08),
    satellites=_foci(0.7, 0.12, 0.09, 0.06, 0.03),
)
_ASTROCYTOMA = Look(
    lobe=_lobes(0.4, 0.33, 0.13, 0.03, 0.11),
    cortical=Bernoulli(0.35),
    core_ml=_core(38),
    infiltration_mm=_front(2.3),
    enhancement=_enhancement(0.86, 0.13, 0.01),
    rim_mm=_rim(4.8),
    oedema_mm=_oedema(5, 4),
    mismatch=Bernoulli(0.6),
    calcified=Bernoulli(0.06),
    texture=_texture(0.065),
    satellites=_foci(0.95, 0.03, 0.02),
)
_OLIGODENDROGLIOMA = Look(
    lobe=_lobes(0.62, 0.17, 0.13, 0.02, 0.06),
    cortical=Bernoulli(0.8),
    core_ml=_core(38),
    infiltration_mm=_front(2.55),
    enhancement=_enhancement(0.8, 0.19, 0.01),
    rim_mm=_rim(4.8),
    oedema_mm=_oedema(5, 4),
    mismatch=Bernoulli(0.02),
    calcified=Bernoulli(0.4),
    texture=_texture(0.085),
    satellites=_foci(0.95, 0.03, 0.02),
)

_BY_GRADE: dict[tuple[str, int], Look] = {
    ("glioblastoma", 4): _GLIOBLASTOMA,
    ("astrocytoma", 2): _ASTROCYTOMA,
    ("astrocytoma", 3): replace(
        _ASTROCYTOMA,
        core_ml=_core(50),
        enhancement=_enhancement(0.45, 0.45, 0.1),
        oedema_mm=_oedema(8, 5),
        mismatch=Bernoulli(0.6),
        satellites=_foci(0.9, 0.06, 0.04),
    ),
    ("astrocytoma", 4): replace(
        _ASTROCYTOMA,
        core_ml=_core(54),
        enhancement=_enhancement(0.12, 0.33, 0.55),
        oedema_mm=_oedema(11, 6),
        mismatch=Bernoulli(0.5),
        texture=_texture(0.075),
        satellites=_foci(0.84, 0.08, 0.05, 0.03),
    ),
    ("oligodendroglioma", 2): _OLIGODENDROGLIOMA,
    ("oligodendroglioma", 3): replace(
        _OLIGODENDROGLIOMA,
        core_ml=_core(50),
        enhancement=_enhancement(0.37, 0.55, 0.08),
        oedema_mm=_oedema(8, 5),
        satellites=_foci(0.9, 0.06, 0.04),
    ),
}

LOOKS: dict[State, Look] = {
    (who_type, grade, tert): look
    for (who_type, grade), look in _BY_GRADE.items()
    for tert in ("mutant", "wildtype")
}
"""The look of every state. TERT shows within glioblastoma alone."""
LOOKS["glioblastoma", 4, "wildtype"] = replace(
    _GLIOBLASTOMA,
    enhancement=_enhancement(0.2, 0.3, 0.5),
    rim_mm=_rim(4.3),
    oedema_mm=_oedema(10, 6),
)
