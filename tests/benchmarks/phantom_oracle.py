"""Whether the markers can be read from the phantoms' images: a small radiomics classifier.

    python tests/benchmarks/phantom_oracle.py --cases 200 --spacing 2 --workers 2

renders gliomas of protocol A without noise and artefacts, takes some 45 features from the true
segmentation and the four sequences, and predicts every marker and the grade by cross-validation.
Features and models were chosen on cases of seeds 0 and 1; the default is another.
Writes tests/benchmarks/results/phantom_oracle.json: AUC with its interval beside the Bayes ceiling,
the bound (0.07 below it, and 0.85 for IDH), and what age and sex alone reach.
"""

import argparse
import dataclasses
import multiprocessing
import os
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.feature_selection import SelectKBest, VarianceThreshold, f_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from gliomoe.data_shards.files import write_json
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.phantom.grid import brain_grid
from gliomoe.data_shards.phantom.patients.ceiling import (
    MARKERS,
    auc,
    ceiling,
    ceiling_of,
    truth,
)
from gliomoe.data_shards.phantom.patients.looks import State
from gliomoe.data_shards.phantom.scanner.protocols import cleaned
from gliomoe.data_shards.phantom.subject import Subject, draw_subject, render
from gliomoe.launch.runs import machine

RESULT = Path(__file__).parent / "results" / "phantom_oracle.json"
MARGIN = 0.07
"""How far below the Bayes ceiling a marker may stay."""
LEAST_IDH = 0.85
FOLDS, REPEATS, RESAMPLES = 5, 5, 2000
ENOUGH = 8
"""Cases that make TERT a class of its own within type and grade."""

SITES = {
    "frontal": (30, 32, 26),
    "temporal": (48, -16, -16),
    "parietal": (32, -48, 42),
    "occipital": (26, -82, 8),
    "insula": (38, 4, 2),
}
"""Rough centres of lobes in MNI152 space, mm; the first coordinate holds for either side."""


def render_clean(config: CohortConfig, number: int) -> tuple[Subject, dict[str, np.ndarray]]:
    """A subject and its features."""
    subject = draw_subject(config, number)
    session = {name: cleaned(acquisition) for name, acquisition in subject.session.items()}
    rendered = render(config, dataclasses.replace(subject, session=session))
    images = {name: image.voxels for name, image in rendered.series.items()}
    return subject, features(images, rendered.seg.voxels, config.spacing)


def features(images: dict[str, np.ndarray], seg: np.ndarray, spacing: float) -> dict[str, float]:
    """Name → value, NaN where the region it is about is missing."""
    brain = images["t1"] > 0
    whole = ndimage.binary_fill_holes(seg > 0)
    core = ndimage.binary_fill_holes(np.isin(seg, (1, 4)))
    depth = (ndimage.distance_transform_edt(core) * spacing).astype(np.float32)
    beyond = (ndimage.distance_transform_edt(~core) * spacing).astype(np.float32)
    scaled = normalised(images, brain & ~ndimage.binary_dilation(whole, iterations=2))
    return {
        **shape(seg, core, whole, spacing),
        **rim(seg, depth, spacing),
        **place(core, depth, brain, spacing),
        **border(scaled, brain, core, depth, beyond, seg, spacing),
        **brightness(scaled, seg, depth),
        **inside(scaled, seg, core, depth, spacing),
    }


def normalised(images: dict[str, np.ndarray], healthy: np.ndarray) -> dict[str, np.ndarray]:
    """Images over their median in white matter, which is what is bright in T1."""
    t1 = images["t1"]
    low, high = np.percentile(t1[healthy], (65, 95))
    white = healthy & (t1 > low) & (t1 < high)
    return {
        name: image.astype(np.float32) / np.float32(np.median(image[white]))
        for name, image in images.items()
    }


def shape(seg: np.ndarray, core: np.ndarray, whole: np.ndarray, spacing: float) -> dict:
    """Volumes, ratios, compactness, separate parts."""
    ml = spacing**3 / 1000
    counts = {label: np.count_nonzero(seg == label) * ml for label in (1, 2, 4)}
    out = {
        "log_core": np.log(counts[1] + counts[4] + ml),
        "log_whole": np.log(sum(counts.values()) + ml),
        "log_enhancing": np.log(counts[4] + 0.1),
        "enhancing_of_core": counts[4] / (counts[1] + counts[4] + ml),
        "oedema_of_whole": counts[2] / (sum(counts.values()) + ml),
    }
    for name, mask in (("core", core), ("whole", whole)):
        surface = np.count_nonzero(mask & ~ndimage.binary_erosion(mask))
        out[f"compact_{name}"] = np.count_nonzero(mask) ** (2 / 3) / max(surface, 1)
    parts, count = ndimage.label(core)
    sizes = np.sort(np.bincount(parts.ravel())[1:])[::-1] * ml if count else np.zeros(1)
    out["parts_of_core"] = np.log1p(count)
    out["small_parts"] = np.log1p(np.count_nonzero(sizes[1:] > 2 * ml))
    return out


def rim(seg: np.ndarray, depth: np.ndarray, spacing: float) -> dict:
    """How a ring lies around what is inside it, and how thick it is."""
    enhancing, dead = seg == 4, seg == 1
    shell, middle = (depth > 0) & (depth <= 2.5), depth > 6
    within = ndimage.distance_transform_edt(enhancing) * spacing
    inner = ndimage.binary_dilation(dead & (depth > 3)) & enhancing
    return {
        "enhancing_shell": _mean(enhancing, shell),
        "enhancing_middle": _mean(enhancing, middle),
        "dead_middle": _mean(dead, middle),
        "rim_depth": _percentile(depth, inner, 50),
        "rim_depth_high": _percentile(depth, inner, 80),
        "rim_thickness": _mean(within, enhancing),
    }


def place(core: np.ndarray, depth: np.ndarray, brain: np.ndarray, spacing: float) -> dict:
    """Where the middle of the core lies: coordinates, nearness to lobes, depth in the brain."""
    points = brain_grid(spacing).points()
    weight = depth**2
    centre = (points * weight).sum((1, 2, 3)) / max(weight.sum(), 1e-6)
    x, y, z = abs(centre[0]), centre[1], centre[2]
    under = ndimage.distance_transform_edt(ndimage.binary_fill_holes(brain)) * spacing
    far = {name: np.linalg.norm(np.subtract((x, y, z), site)) for name, site in SITES.items()}
    return {
        **{f"near_{name}": np.exp(-((away / 25) ** 2) / 2) for name, away in far.items()},
        "depth_of_middle": (under * weight).sum() / max(weight.sum(), 1e-6),
        "superficial": _mean(under < 8, core),
    }


def border(
    scaled: dict[str, np.ndarray],
    brain: np.ndarray,
    core: np.ndarray,
    depth: np.ndarray,
    beyond: np.ndarray,
    seg: np.ndarray,
    spacing: float,
) -> dict:
    """How far oedema reaches and how steeply the signal falls at the edge of the core."""
    out = {
        "oedema_reach": _mean(beyond, seg == 2),
        "oedema_reach_high": _percentile(beyond, seg == 2, 90),
        "oedema_shell": _mean(seg == 2, brain & (beyond > 3) & (beyond <= 6)),
    }
    # In directions without oedema the rest of the tumour is as wide as the invading front.
    margin = ndimage.distance_transform_edt(seg > 0) * spacing
    surface = core & ~ndimage.binary_erosion(core)
    out["margin_low"] = _percentile(margin, surface, 15)
    out["margin"] = _percentile(margin, surface, 50)
    edge = (depth <= 3) & (beyond <= 3) & brain
    for name in ("t1", "t2"):
        steep = ndimage.gaussian_gradient_magnitude(scaled[name], 0.7)
        out[f"steep_{name}"] = _mean(steep, edge)
    return out


def brightness(scaled: dict[str, np.ndarray], seg: np.ndarray, depth: np.ndarray) -> dict:
    """Medians of the core in every sequence, and how much it takes up contrast agent."""
    out = {f"{name}_core": _percentile(image, seg == 1, 50) for name, image in scaled.items()}
    gain = scaled["t1ce"] / np.maximum(scaled["t1"], 0.05)
    out["gain_core"] = _percentile(gain, depth > 0, 75)
    return out


def inside(
    scaled: dict[str, np.ndarray],
    seg: np.ndarray,
    core: np.ndarray,
    depth: np.ndarray,
    spacing: float,
) -> dict:
    """FLAIR against T2 from rim to middle, dark clumps, unevenness."""
    solid = seg == 1
    quotient = scaled["flair"] / np.maximum(scaled["t2"], 0.05)
    middle, outer = solid & (depth > 6), solid & (depth <= 4)
    out = {
        "flair_t2_middle": _percentile(quotient, middle, 50),
        "flair_middle_of_outer": _percentile(scaled["flair"], middle, 50)
        / _percentile(scaled["flair"], outer, 50),
        "t1_middle_of_outer": _percentile(scaled["t1"], middle, 50)
        / _percentile(scaled["t1"], outer, 50),
    }
    living = core & (depth > 2)
    for sequence in ("t1", "t2"):
        for name, mask in (("solid", solid & (depth > 2)), ("enhancing", seg == 4)):
            out[f"{sequence}_uneven_{name}"] = _unevenness(scaled[sequence], mask, spacing)
    level = _percentile(scaled["t2"], living, 50)
    out["t2_low"] = _percentile(scaled["t2"], living, 2) / level
    out["t2_dark"] = _mean(scaled["t2"] < 0.6 * level, living)
    darkest = ndimage.uniform_filter(scaled["t2"], max(3, int(4 / spacing)))
    out["t2_clump"] = _percentile(darkest, living, 1) / level
    return out


def _unevenness(image: np.ndarray, mask: np.ndarray, spacing: float) -> float:
    """Spread between quartiles of an image over its own mean within some 4 mm of the mask."""
    inner = mask.astype(np.float32)
    total, weight = (
        ndimage.gaussian_filter(field, 4 / spacing) for field in (image * inner, inner)
    )
    local = image / np.maximum(total / np.maximum(weight, 1e-3), 1e-3)
    return _percentile(local, mask, 75) - _percentile(local, mask, 25)


def _mean(values: np.ndarray, mask: np.ndarray) -> float:
    return float(values[mask].mean()) if mask.any() else np.nan


def _percentile(values: np.ndarray, mask: np.ndarray, percent: float) -> float:
    return float(np.percentile(values[mask], percent)) if mask.any() else np.nan


def models(seed: int) -> list:
    """Plain classifiers; all of scaling, filling and choice of features is learned in the fold."""
    fill = SimpleImputer(strategy="median", keep_empty_features=True)
    return [
        make_pipeline(
            fill,
            VarianceThreshold(),
            StandardScaler(),
            SelectKBest(f_classif, k=30),
            LogisticRegression(C=0.1, max_iter=5000),
        ),
        make_pipeline(
            fill,
            ExtraTreesClassifier(500, min_samples_leaf=3, max_features=0.3, random_state=seed),
        ),
    ]


def classes_of(states: list[State]) -> np.ndarray:
    """[N] names of type and grade, parted by TERT where both parts have enough cases."""
    counts = Counter(states)
    names = []
    for who_type, grade, tert in states:
        parted = min(counts[who_type, grade, other] for other in ("mutant", "wildtype")) >= ENOUGH
        names.append(f"{who_type} {grade} {tert}" if parted else f"{who_type} {grade}")
    return np.array(names)


def predict(table: np.ndarray, states: list[State]) -> dict[str, np.ndarray]:
    """Out-of-fold probabilities of every marker.

    One model tells type, grade and TERT together; a marker's probability is the sum over these
    classes of their probability times the share of the marker among the class's training cases.

    Args:
        table: [N, F] features, a line for each patient.
        states: Type, grade and TERT of each patient.

    Returns:
        Marker → [N], or [N, 3] of the grade: mean over repeats and models; no model has seen the
        case that it predicts.
    """
    true = truth(states)
    out = {marker: np.zeros(true[marker].shape) for marker in MARKERS}
    folds = RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0)
    for seed, (train, test) in enumerate(folds.split(table, classes_of(states))):
        named = classes_of([states[i] for i in train])
        for model in models(seed):
            model.fit(table[train], named)
            chances = model.predict_proba(table[test])
            for marker, score in out.items():
                known = true[marker][train]
                share = np.stack([known[named == name].mean(0) for name in model.classes_])
                score[test] += chances @ share
    return out


def predict_plain(table: np.ndarray, target: np.ndarray) -> np.ndarray:
    """[N, classes] out-of-fold probabilities of a logistic regression of few columns."""
    out = np.zeros((len(target), len(np.unique(target))))
    folds = RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=0)
    for train, test in folds.split(table, target):
        model = LogisticRegression(max_iter=5000).fit(table[train], target[train])
        out[test] += model.predict_proba(table[test])
    return out


def interval(true: np.ndarray, score: np.ndarray) -> list[float]:
    """95 % percentile interval over resampled patients."""
    rng = np.random.default_rng(0)
    areas = []
    while len(areas) < RESAMPLES:
        pick = rng.integers(len(true), size=len(true))
        if np.all(np.ptp(np.reshape(true[pick], (len(true), -1)), axis=0)):
            areas.append(auc(true[pick], score[pick])[0])
    return [round(float(end), 3) for end in np.percentile(areas, (2.5, 97.5))]


def judge(subjects: list[Subject], table: np.ndarray) -> dict:
    """Figures of every marker."""
    gliomas = [subject.glioma for subject in subjects]
    states = [(glioma.who_type, glioma.grade, glioma.tert) for glioma in gliomas]
    true, best, attainable = truth(states), ceiling_of(gliomas), ceiling()["markers"]
    seen = predict(table, states)
    person = np.array([[subject.age / 10, subject.sex == "M"] for subject in subjects], float)
    out = {}
    for marker in MARKERS:
        grade = marker == "grade"
        guess = predict_plain(person, true[marker].argmax(1) if grade else true[marker])
        age_sex = auc(true[marker], guess if grade else guess[:, 1])[0]
        reached = auc(true[marker], seen[marker])[0]
        top = attainable[marker]["imaging"]["auc"]
        bound = max(top - MARGIN, LEAST_IDH if marker == "idh" else 0)
        most = max(age_sex, attainable[marker]["age_sex"]["auc"])
        out[marker] = {
            "auc": round(reached, 3),
            "interval": interval(true[marker], seen[marker]),
            "ceiling": round(top, 3),
            "ceiling_of_these_cases": best[marker] and round(best[marker]["auc"], 3),
            "bound": round(bound, 3),
            "reached": reached >= bound,
            "age_sex": round(age_sex, 3),
            "age_sex_ceiling": round(attainable[marker]["age_sex"]["auc"], 3),
            "age_sex_below_bound": most < bound,
        }
    return out


def _measure(job: tuple[CohortConfig, int]) -> tuple[Subject, dict[str, float]]:
    return render_clean(*job)


def main() -> None:
    """Run it and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--spacing", type=float, default=2.0, help="mm")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--table", type=Path, help="also keep the features, .npz")
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    config = CohortConfig(asked.cases, protocol="A", spacing=asked.spacing, seed=asked.seed)
    jobs = [(config, number) for number in range(1, asked.cases + 1)]
    with multiprocessing.get_context("spawn").Pool(asked.workers) as pool:
        measured = list(tqdm(pool.imap(_measure, jobs), total=len(jobs), unit="case", disable=None))
    subjects = [subject for subject, _ in measured]
    names = list(measured[0][1])
    table = np.array([[values[name] for name in names] for _, values in measured], float)
    if asked.table:
        np.savez(asked.table, names=names, table=table)
    about = machine()
    about["versions"] |= {name: version(name) for name in ("scikit-learn", "scipy")}
    result = {
        "cases": asked.cases,
        "spacing": asked.spacing,
        "seed": asked.seed,
        "features": len(names),
        "cross_validation": f"{FOLDS} folds, {REPEATS} times",
        "markers": judge(subjects, table),
        "machine": about,
    }
    write_json(RESULT, result)
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
