"""Phantoms beside real MRI, in figures: contrast, histogram, sharpness, shape of tumours.

    python tests/benchmarks/realism.py --real FOLDER [FOLDER ...] [--phantoms N] [--workers N]

takes the real studies and N raw phantoms without labels and N labelled ones through the same
default preprocessing at 1 mm, measures the same features of each, and writes
tests/benchmarks/results/realism.json with machine and versions, and the tables of
data_shards/phantom/REALISM.md. `separable` is how well a forest tells phantom from real by all
features of one sequence: area under the curve of held-out studies; 0.5 would be not at all
(Lopez-Paz and Oquab, ICLR 2017).
"""

import argparse
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from gliomoe.data_shards.files import atomic_write, write_json
from gliomoe.data_shards.ingest import find_studies
from gliomoe.data_shards.intensity import robust_range
from gliomoe.data_shards.phantom.cohort import write_cohort
from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.preprocess import PreprocessConfig, preprocess
from gliomoe.data_shards.study import RawStudy
from gliomoe.launch.runs import machine

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "tests/benchmarks/results/realism.json"
PAGE = ROOT / "data_shards/phantom/REALISM.md"

SPACING = 1.0
LEAST = 5
"""Real studies that a figure needs."""

REGIONS = {"core": (1,), "oedema": (2,), "enhancing": (3,)}

Features = dict[str, dict[str, float]]
"""Sequence, or `tumour` → feature → value."""


def measure(raw: RawStudy) -> Features:
    """Every feature of a study, after the default preprocessing."""
    study = preprocess(raw, PreprocessConfig(spacing=SPACING))
    volumes = {name: _normalised(volume) for name, volume in study.volumes.items()}
    tissues = _tissues(volumes["t1"]) if "t1" in volumes else None
    features: Features = {}
    for name, volume in volumes.items():
        features[name] = {**_histogram(volume), **_sharpness(volume)}
        stored = np.where(study.volumes[name] != 0, study.volumes[name], np.nan)
        if tissues is not None:
            features[name] |= _contrast(stored, tissues, study.seg)
        if study.seg is not None and study.seg.any():
            features[name] |= _tumour_contrast(stored, study.seg)
    if study.seg is not None and study.seg.any():
        features["tumour"] = _shape(study.seg)
        if "flair" in volumes:
            features["tumour"]["Dice of the best FLAIR threshold"] = _threshold_dice(
                volumes["flair"], study.seg
            )
    return features


def _normalised(volume: np.ndarray) -> np.ndarray:
    """Percentiles 0.5 and 99.5 of the tissue become 0 and 1; air is NaN."""
    low, high = robust_range(volume)
    return np.where(volume != 0, (volume - low) / max(high - low, 1e-6), np.nan).astype(np.float32)


def _tissues(t1: np.ndarray) -> np.ndarray:
    """CSF 1, grey 2, white 3 of the voxels inside one class, by three means of T1; 0 elsewhere."""
    brain = ndimage.binary_erosion(np.isfinite(t1), iterations=3)
    values = t1[brain]
    centres = np.percentile(values, (5, 40, 80))
    for _ in range(30):
        edges = (centres[:-1] + centres[1:]) / 2
        classes = np.digitize(values, edges)
        centres = np.array([values[classes == k].mean() for k in range(3)])
    out = np.zeros(t1.shape, np.uint8)
    out[brain] = classes + 1
    pure = ndimage.minimum_filter(out, 3) == ndimage.maximum_filter(out, 3)
    return out * pure


def _histogram(volume: np.ndarray) -> dict[str, float]:
    values = volume[np.isfinite(volume)]
    deciles = np.percentile(values, range(10, 100, 10))
    spread = (values - values.mean()) / values.std()
    return {
        **{f"decile {k}": float(value) for k, value in enumerate(deciles, 1)},
        "skewness": float((spread**3).mean()),
        "kurtosis": float((spread**4).mean()),
    }


def _sharpness(volume: np.ndarray) -> dict[str, float]:
    """Power spectrum, gradients and roughness of the largest tissue."""
    inside = np.isfinite(volume)
    filled = np.where(inside, volume, np.nanmean(volume))
    middle = tuple(slice(side // 4, side - side // 4) for side in volume.shape)
    block = filled[middle] - filled[middle].mean()
    for axis, side in enumerate(block.shape):
        block = block * np.hanning(side).reshape([-1 if a == axis else 1 for a in range(3)])
    power = np.abs(np.fft.fftn(block)) ** 2
    frequency = np.sqrt(
        sum(
            np.fft.fftfreq(side, SPACING).reshape([-1 if a == axis else 1 for a in range(3)]) ** 2
            for axis, side in enumerate(block.shape)
        )
    )
    edges = np.geomspace(0.03, 0.35, 9)
    rings = np.digitize(frequency, edges)
    level = np.log([power[rings == k].mean() for k in range(1, len(edges))])
    places = np.log(np.sqrt(edges[1:] * edges[:-1]))
    core = ndimage.binary_erosion(inside, iterations=3)
    gradient = np.sqrt(sum(np.square(side) for side in np.gradient(filled)))[core]
    rough = (filled - ndimage.gaussian_filter(filled, 1.0))[core]
    return {
        "slope of the power spectrum": float(np.polyfit(places, level, 1)[0]),
        "slope above 0.1/mm": float(np.polyfit(places[4:], level[4:], 1)[0]),
        "median gradient per mm": float(np.median(gradient)),
        "95th percentile of the gradient": float(np.percentile(gradient, 95)),
        "fine detail (SD below 1 mm)": float(rough.std()),
    }


def _contrast(volume: np.ndarray, tissues: np.ndarray, seg: np.ndarray | None) -> dict[str, float]:
    healthy = np.isfinite(volume) & (True if seg is None else seg == 0)
    csf, grey, white = (
        np.median(volume[(tissues == k) & healthy]) if ((tissues == k) & healthy).any() else np.nan
        for k in (1, 2, 3)
    )
    return {"grey / white": float(grey / white), "CSF / white": float(csf / white)}


def _tumour_contrast(volume: np.ndarray, seg: np.ndarray) -> dict[str, float]:
    brain = np.median(volume[np.isfinite(volume) & (seg == 0)])
    return {
        f"{name} / brain": float(np.nanmedian(volume[np.isin(seg, labels)]) / brain)
        for name, labels in REGIONS.items()
        if np.isin(seg, labels).sum() > 100
    }


def _shape(seg: np.ndarray) -> dict[str, float]:
    """Volumes, compactness and parts of a tumour at 1 mm."""
    whole, core, enhancing = seg > 0, np.isin(seg, (1, 3)), seg == 3
    total, solid = whole.sum(), core.sum()
    parts, count = ndimage.label(whole)
    sizes = np.bincount(parts.ravel())[1:]
    return {
        "whole tumour, ml": total * SPACING**3 / 1000,
        "core, ml": solid * SPACING**3 / 1000,
        "core / whole": solid / total,
        "enhancing / core": enhancing.sum() / max(solid, 1),
        "sphericity of the whole": _sphericity(whole),
        "sphericity of the core": _sphericity(core),
        "parts": float(count),
        "share of the largest part": float(sizes.max() / total),
    }


def _sphericity(mask: np.ndarray) -> float:
    """Surface of the ball of equal volume over the surface; faces of voxels count two thirds."""
    if not mask.any():
        return float("nan")
    padded = np.pad(mask, 1).astype(np.int8)
    faces = sum(np.abs(np.diff(padded, axis=axis)).sum() for axis in range(3)) * SPACING**2
    volume = mask.sum() * SPACING**3
    return float(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / (faces * 2 / 3))


def _threshold_dice(flair: np.ndarray, seg: np.ndarray) -> float:
    """Of the whole tumour, by the threshold that suits this case best: how easy it is."""
    brain = np.isfinite(flair)
    values, truth = flair[brain], seg[brain] > 0
    best = 0.0
    for bound in np.percentile(values, range(60, 100)):
        found = values > bound
        best = max(best, 2 * (found & truth).sum() / (found.sum() + truth.sum()))
    return float(best)


def measured(studies: list[RawStudy], workers: int) -> list[Features]:
    """Features of many studies, in processes."""
    with ProcessPoolExecutor(workers, get_context("forkserver")) as pool:
        return list(pool.map(measure, studies))


def compare(real: list[Features], phantom: list[Features]) -> dict:
    """Quartiles of both for every feature that enough real studies have, and how separable."""
    out = {}
    for name in sorted({name for one in real for name in one}):
        ours, theirs = (_rows(group, name) for group in (phantom, real))
        if min(len(ours), len(theirs)) < LEAST:
            continue
        keys = list(dict.fromkeys(key for row in (*theirs, *ours) for key in row))
        out[name] = {
            "studies": {"real": len(theirs), "phantom": len(ours)},
            "separable": _separable(theirs, ours, keys),
            "features": {
                key: {"real": _quartiles(theirs, key), "phantom": _quartiles(ours, key)}
                for key in keys
                if min(len(_values(theirs, key)), len(_values(ours, key))) >= LEAST
            },
        }
    return out


def _rows(group: Iterable[Features], name: str) -> list[dict[str, float]]:
    return [one[name] for one in group if name in one]


def _values(rows: list[dict[str, float]], key: str) -> list[float]:
    return [row[key] for row in rows if np.isfinite(row.get(key, np.nan))]


def _quartiles(rows: list[dict[str, float]], key: str) -> list[float]:
    return [round(float(q), 3) for q in np.percentile(_values(rows, key), (25, 50, 75))]


def _separable(real: list[dict], phantom: list[dict], keys: list[str]) -> float:
    """Area under the curve of held-out studies."""
    table = np.array([[row.get(key, np.nan) for key in keys] for row in (*real, *phantom)])
    table[~np.isfinite(table)] = np.nan
    truth = np.repeat((0, 1), (len(real), len(phantom)))
    model = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        RandomForestClassifier(300, class_weight="balanced", random_state=0),
    )
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    score = cross_val_predict(model, table, truth, cv=folds, method="predict_proba")[:, 1]
    return round(float(roc_auc_score(truth, score)), 3)


def page(result: dict) -> str:
    """The tables, as they stand in the documentation."""
    about = result["machine"]
    lines = [
        "# Phantoms beside real MRI",
        "",
        "Written by `tests/benchmarks/realism.py` from "
        "[realism.json](../../tests/benchmarks/results/realism.json): "
        f"{result['studies']['real']} real studies and {result['studies']['phantom']} phantoms at "
        f"{SPACING:g} mm, through the same default preprocessing "
        f"(gliomoe {about['versions']['gliomoe']}, {about['processor']}). "
        "Median and quartiles. Deciles, gradients and detail are of intensities normalised to 0–1, "
        "ratios of medians (`grey / white` …) of intensities as stored. *Separable* is the area "
        "under the curve with which a random forest tells phantom from real by all features of "
        "one table, 0.5 would be not at all. A phantom is a test bed, never clinical evidence.",
    ]
    for name, table in result["tables"].items():
        counts = table["studies"]
        lines += [
            "",
            f"## {name}: separable {table['separable']:.2f}",
            "",
            f"| | real ({counts['real']}) | phantom ({counts['phantom']}) |",
            "|---|---|---|",
        ]
        for key, sides in table["features"].items():
            cells = (f"{q[1]:.2f} ({q[0]:.2f}–{q[2]:.2f})" for q in sides.values())
            lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run it and write results and page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--real", nargs="+", type=Path, required=True, help="folders of studies")
    parser.add_argument("--phantoms", type=int, default=40, help="of each kind")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args()
    kinds = {
        "raw": CohortConfig(
            options.phantoms, "mixed", form="raw", unlabelled=True, spacing=SPACING, seed=5
        ),
        "labelled": CohortConfig(options.phantoms, "mixed", spacing=SPACING, seed=6),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for kind, config in kinds.items():
            write_cohort(Path(scratch, kind), config, options.workers)
        ours = [raw for kind in kinds for raw in find_studies(Path(scratch, kind))]
        phantom = measured(ours, options.workers)
    real = measured(
        [raw for folder in options.real for raw in find_studies(folder)], options.workers
    )
    result = {
        "machine": machine(),
        "libraries": {name: version(name) for name in ("scikit-learn", "scipy", "nilearn")},
        "studies": {"real": len(real), "phantom": len(phantom)},
        "settings": {kind: repr(config) for kind, config in kinds.items()},
        "tables": compare(real, phantom),
    }
    write_json(options.result, result)
    with atomic_write(options.page, "w") as file:
        file.write(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
