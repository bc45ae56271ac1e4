"""The Bayes ceiling: how well the best possible reader could tell each marker.

The posterior of type, grade and TERT given the traits is exact, since traits are drawn from known
distributions. Its AUC over a large simulated population is what no model can pass on average that
sees the traits alone, however well it sees them. A result on a phantom is to be read against it.
A model of the images may read age from the brain as well; then `imaging_age_sex` is its ceiling.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from gliomoe.data_shards.phantom.patients.looks import LOOKS, TRAITS, State
from gliomoe.data_shards.phantom.patients.markers import (
    GLIOMA_TYPES,
    Glioma,
    age_of,
    male_of,
    state_shares,
)

_LOBES = ("frontal", "temporal", "parietal", "occipital")
_POSITIVE = ("core_ml", "infiltration_mm", "texture")

MARKERS = ("idh", "1p19q", "tert", "grade")
GRADES = (2, 3, 4)

_STATES = tuple(state_shares())
_POPULATION = 20_000
_BINARY = {
    "idh": lambda state: GLIOMA_TYPES[state[0]].idh == "mutant",
    "1p19q": lambda state: GLIOMA_TYPES[state[0]].codeletion == "codeleted",
    "tert": lambda state: state[2] == "mutant",
    "grade_high": lambda state: state[1] > 2,
    "grade_4": lambda state: state[1] == 4,
}
"""Marker, or grade parted in two → whether a state is positive."""

Patients = tuple[np.ndarray, dict[str, np.ndarray], np.ndarray, np.ndarray]
"""[N] index of the state, trait → [N], [N] age, [N] whether a man."""


def traits_of(gliomas: Sequence[Glioma]) -> dict[str, np.ndarray]:
    """Trait → [N] values of given gliomas."""
    return {name: np.array([getattr(glioma, name) for glioma in gliomas]) for name in TRAITS}


def posterior(
    traits: dict[str, np.ndarray] | None,
    age: np.ndarray | None = None,
    male: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Exact probability of each marker.

    Args:
        traits: What `traits_of` gives; None leaves the images out.
        age: [N] whole years; None leaves it out.
        male: [N] bool; None leaves it out.

    Returns:
        `idh`, `1p19q`, `tert`: [N] probability of mutant or codeleted; `grade`: [N, 3] of WHO
        grade 2, 3, 4; `grade_high` of 3 or 4 and `grade_4` of 4: [N].
    """
    log = []
    for state, share in state_shares().items():
        terms = [np.log(share)]
        if traits is not None:
            terms.append(LOOKS[state].log_density(traits))
        if age is not None:
            terms.append(age_of(state).log_density(age))
        if male is not None:
            terms.append(male_of(state).log_density(male))
        log.append(sum(terms))
    joint = np.stack(np.broadcast_arrays(*log))
    joint = np.exp(joint - joint.max(0))
    joint /= joint.sum(0)
    return _over_states(joint)


def truth(states: Sequence[State]) -> dict[str, np.ndarray]:
    """What `posterior` estimates, 0 or 1, for known states; of a glioma, type, grade and TERT."""
    known = np.array([[state == ours for state in states] for ours in _STATES], float)
    return _over_states(known)


def draw_population(size: int, rng: np.random.Generator) -> Patients:
    """Many patients at once, as `draw_glioma` draws one."""
    shares = np.array(list(state_shares().values()))
    index = np.sort(rng.choice(len(_STATES), size, p=shares / shares.sum()))
    counts = np.bincount(index, minlength=len(_STATES))
    groups = [
        tuple(part.draw(rng, count) for part in (LOOKS[state], age_of(state), male_of(state)))
        for state, count in zip(_STATES, counts, strict=True)
    ]
    traits = {name: np.concatenate([group[0][name] for group in groups]) for name in TRAITS}
    ages, men = (np.concatenate([group[i] for group in groups]) for i in (1, 2))
    return index, traits, ages, men


def ceiling(seed: int = 0, population: int = _POPULATION) -> dict[str, Any]:
    """The best attainable AUC of each marker, from traits, from age and sex, and from both.

    The grade's is the mean over grades 2, 3, 4 of the AUC of each against the rest, which is how
    fine-tuning is judged; `grade_high` (3 and 4 against 2) and `grade_4` (against 2 and 3) stand
    beside it.

    Args:
        seed: Of the simulated population.
        population: Patients; the standard error falls with its root.

    Returns:
        For a JSON file: marker → `imaging`, `age_sex`, `imaging_age_sex` → `auc`, `se`.
    """
    index, traits, age, male = draw_population(population, np.random.default_rng(seed))
    true = truth([_STATES[i] for i in index])
    known = {
        "imaging": posterior(traits),
        "age_sex": posterior(None, age, male),
        "imaging_age_sex": posterior(traits, age, male),
    }
    return {
        "description": "Largest AUC that the true imaging traits allow on average",
        "population": population,
        "seed": seed,
        "markers": {
            marker: {
                source: _figures(true[marker], score[marker]) for source, score in known.items()
            }
            for marker in true
        },
    }


def ceiling_of(gliomas: Sequence[Glioma]) -> dict[str, dict[str, float] | None]:
    """What the exact posterior reaches on given tumours, by their traits alone.

    In a small cohort this lies off the ceiling by some standard errors.

    Returns:
        Marker (as in `ceiling`) → `auc`, `se`; None where the cohort lacks a class.
    """
    true = truth([(glioma.who_type, glioma.grade, glioma.tert) for glioma in gliomas])
    score = posterior(traits_of(gliomas))
    return {
        marker: _figures(true[marker], score[marker]) if _mixed(true[marker]) else None
        for marker in true
    }


def auc(positive: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Area under the ROC curve, and its standard error.

    The error follows from the placements of every case (DeLong et al., Biometrics 1988).

    Args:
        positive: [N] 0 or 1; or [N, C] of classes, each against the rest.
        score: Same shape, larger for positives.

    Returns:
        The area (of classes, the mean area) and its standard error.

    Raises:
        ValueError: If a class has no case or nothing but cases.
    """
    columns = np.reshape(positive, (len(positive), -1)) > 0, np.reshape(score, (len(score), -1))
    areas, shifts = zip(*map(_area, *(column.T for column in columns)), strict=True)
    return float(np.mean(areas)), float(np.sqrt((np.mean(shifts, axis=0) ** 2).sum()))


def _area(positive: np.ndarray, score: np.ndarray) -> tuple[float, np.ndarray]:
    """The area, and [N] by how much each case moves it."""
    if positive.all() or not positive.any():
        raise ValueError("an AUC needs cases of both kinds")
    ranks = rankdata(score)
    place = np.empty(len(score))
    for group, side in ((positive, 1), (~positive, -1)):
        beaten = (ranks[group] - rankdata(score[group])) / np.count_nonzero(~group)
        place[group] = beaten if side == 1 else 1 - beaten
    area = place[positive].mean()
    counts = np.where(positive, np.count_nonzero(positive), np.count_nonzero(~positive))
    return area, (place - area) / counts


def latent_features(gliomas: Sequence[Glioma]) -> tuple[tuple[str, ...], np.ndarray]:
    """The traits as numbers, for a plain model.

    Returns:
        Names, and [N, F] float: an indicator for every name that a trait may have, logarithms of
        volume, front and texture, and beside oedema what rim and oedema are where there is a
        ring, else 0.
    """
    return features_of(traits_of(gliomas))


def features_of(traits: dict[str, np.ndarray]) -> tuple[tuple[str, ...], np.ndarray]:
    """What `latent_features` gives, of traits."""
    ring = traits["enhancement"] == "ring"
    columns = {
        **{f"lobe_{name}": traits["lobe"] == name for name in _LOBES},
        **{name: traits[name] for name in ("cortical", "mismatch", "calcified", "satellites")},
        "enhancement_patchy": traits["enhancement"] == "patchy",
        "enhancement_ring": ring,
        "rim_mm": np.where(ring, traits["rim_mm"] - 5, 0),
        "oedema_mm": traits["oedema_mm"],
        "oedema_mm_ring": np.where(ring, traits["oedema_mm"], 0),
        **{f"log_{name}": np.log(traits[name]) for name in _POSITIVE},
    }
    return tuple(columns), np.stack([column.astype(float) for column in columns.values()], axis=1)


def trait_row(glioma: Glioma) -> dict[str, str]:
    """One line of a table of traits: column (`TRAIT_DESCRIPTIONS`) → text."""
    return {name: _text(name, glioma) for name in TRAITS}


def _text(name: str, glioma: Glioma) -> str:
    value = getattr(glioma, name)
    if name == "rim_mm" and glioma.enhancement != "ring":
        return "n/a"
    if isinstance(value, bool):
        return str(int(value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _over_states(joint: np.ndarray) -> dict[str, np.ndarray]:
    """Marker → probability, from [states, N]."""
    out = {
        marker: joint[[positive(state) for state in _STATES]].sum(0)
        for marker, positive in _BINARY.items()
    }
    grades = [joint[[state[1] == grade for state in _STATES]].sum(0) for grade in GRADES]
    return {**out, "grade": np.stack(grades, axis=-1)}


def _mixed(positive: np.ndarray) -> bool:
    return bool((np.ptp(positive, axis=0) > 0).all())


def _figures(positive: np.ndarray, score: np.ndarray) -> dict[str, float]:
    area, error = auc(positive, score)
    return {"auc": round(area, 4), "se": round(error, 4)}
