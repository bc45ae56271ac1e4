"""Every figure against a hand-computed case or a naive reference, degenerate cases included."""

import itertools
import json

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from gliomoe.finetune.metrics.intervals import (
    bootstrap_mean,
    delong_auc,
    delong_test,
    paired_bootstrap,
)
from gliomoe.finetune.metrics.markers import (
    binary_figures,
    expected_calibration_error,
    grade_figures,
    youden_threshold,
)
from gliomoe.finetune.metrics.segmentation import FIGURES, RATIOS, dice, region_figures


def box(*bounds: tuple[int, int], shape=(12, 14, 10)) -> torch.Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(*bound) for bound in bounds)] = True
    return mask


def naive_surface_distances(a: np.ndarray, b: np.ndarray, mm) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each surface voxel of one mask to the nearest of the other, both ways."""
    edges = [np.argwhere(m & ~binary_erosion(m)) * np.array(mm) for m in (a, b)]
    gaps = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=2)
    return gaps.min(1), gaps.min(0)


def test_hand_computed_overlap():
    truth, found = box((2, 6), (2, 6), (2, 6)), box((2, 6), (2, 6), (4, 8))
    figures = region_figures(found, truth, (1, 1, 1))
    assert figures.empty == "none"
    assert figures.values["dice"] == pytest.approx(0.5)
    assert figures.values["iou"] == pytest.approx(1 / 3)
    assert figures.values["sensitivity"] == pytest.approx(0.5)
    assert figures.values["precision"] == pytest.approx(0.5)
    assert figures.values["hd95"] == pytest.approx(2.0)
    assert dice(found, truth).item() == pytest.approx(0.5)


def test_distances_against_all_pairs():
    truth, found = box((2, 9), (3, 7), (1, 6)), box((3, 10), (2, 9), (2, 5))
    mm = (1.5, 1.0, 2.0)
    values = region_figures(found, truth, mm).values
    there, back = naive_surface_distances(found.numpy(), truth.numpy(), mm)
    assert values["hd95"] == pytest.approx(
        max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-4
    )
    for limit in (1, 2):
        near = (there <= limit).sum() + (back <= limit).sum()
        share = near / (len(there) + len(back))
        assert values[f"nsd_{limit}mm"] == pytest.approx(share, abs=1e-6)


def test_identical_masks():
    mask = box((2, 6), (2, 6), (2, 6))
    values = region_figures(mask, mask, (2, 2, 2)).values
    assert set(values) == set(FIGURES)
    assert all(values[name] == pytest.approx(1.0) for name in RATIOS)
    assert values["hd95"] == 0


@pytest.mark.parametrize("which", ["truth", "prediction", "both"])
def test_empty_masks(which):
    nothing, something = torch.zeros(3, 4, 12, dtype=torch.bool), torch.zeros(3, 4, 12).bool()
    something[1, 1, 1] = True
    found = nothing if which in ("prediction", "both") else something
    truth = nothing if which in ("truth", "both") else something
    figures = region_figures(found, truth, (1, 1, 1))
    assert figures.empty == which
    expected = 1.0 if which == "both" else 0.0
    assert all(figures.values[name] == expected for name in RATIOS)
    assert figures.values["hd95"] == (0.0 if which == "both" else pytest.approx(13.0))
    assert dice(found, truth).item() == expected


def naive_auc(truth, score) -> float:
    pairs = itertools.product(score[truth == 1], score[truth == 0])
    return float(np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs]))


def naive_delong_variance(truth, a, b) -> float:
    """Variance of the difference of two AUCs from the covariance of all placement values."""

    def psi(x, y):
        return 1.0 if x > y else 0.5 if x == y else 0.0

    pos, neg = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    v10 = np.array([[np.mean([psi(s[i], s[j]) for j in neg]) for i in pos] for s in (a, b)])
    v01 = np.array([[np.mean([psi(s[i], s[j]) for i in pos]) for j in neg] for s in (a, b)])
    cov = np.cov(v10) / len(pos) + np.cov(v01) / len(neg)
    return float(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])


def scores(seed: int = 0, count: int = 25):
    rng = np.random.default_rng(seed)
    truth = (np.arange(count) % 3 == 0).astype(float)
    a = np.round(rng.random(count) * 0.6 + truth * 0.3, 1).clip(0, 1)
    return truth, a, np.round(rng.random(count), 1)


def test_auc_and_delong_against_naive():
    truth, a, b = scores()
    auc = delong_auc(truth, a)
    assert auc.value == pytest.approx(naive_auc(truth, a))
    test = delong_test(truth, a, b)
    half = 1.959964 * np.sqrt(naive_delong_variance(truth, a, b))
    assert test.difference == pytest.approx(naive_auc(truth, a) - naive_auc(truth, b))
    assert test.interval == pytest.approx((test.difference - half, test.difference + half))
    assert 0 < test.p_value < 1
    variance = naive_delong_variance(truth, a, np.zeros_like(a))
    assert auc.interval[0] == pytest.approx(auc.value - 1.959964 * np.sqrt(variance))


def test_a_run_against_itself():
    truth, a, _ = scores()
    test = delong_test(truth, a, a)
    assert (test.difference, test.interval, test.p_value) == (0, (0, 0), 1.0)
    paired = paired_bootstrap(a, a)
    assert (paired.difference, paired.interval) == (0, (0, 0))


def test_one_positive_has_no_interval():
    assert delong_auc(np.array([1, 0, 0]), np.array([0.9, 0.2, 0.3])).interval is None


def test_bootstrap_interval():
    values = np.random.default_rng(1).normal(0.7, 0.1, 200)
    low, high = bootstrap_mean(values)
    error = values.std(ddof=1) / np.sqrt(200)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)
    assert bootstrap_mean(values) == (low, high)
    assert bootstrap_mean(np.array([0.5])) is None
    assert bootstrap_mean(np.array([0.5, 0.5])) == (0.5, 0.5)


def test_youden_is_the_best_of_all_cuts():
    truth, score, _ = scores(3)

    def youden(threshold):
        called = score >= threshold
        return called[truth == 1].mean() - called[truth == 0].mean()

    best = max(youden(t) for t in np.linspace(-0.05, 1.05, 221))
    assert youden(youden_threshold(truth, score)) == pytest.approx(best)
    assert youden_threshold(np.array([0, 1]), np.array([0.2, 0.6])) == pytest.approx(0.4)
    assert youden_threshold(np.array([1, 1]), np.array([0.2, 0.6])) is None


def test_ece_by_hand():
    score = np.array([0.05, 0.05, 0.95, 0.95])
    assert expected_calibration_error(np.array([0, 0, 1, 1]), score) == pytest.approx(0.05)
    assert expected_calibration_error(np.array([1, 0, 1, 1]), score) == pytest.approx(0.25)
    assert expected_calibration_error(np.array([1.0]), np.array([1.0])) == 0


def test_binary_figures_by_hand():
    truth = np.array([1, 1, 0, 0, 0])
    score = np.array([0.9, 0.4, 0.6, 0.2, 0.1])
    figures = binary_figures(truth, score, 0.5)
    assert figures["auc"] == pytest.approx(5 / 6)
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert figures["f1"] == pytest.approx(0.5)
    assert figures["mcc"] == pytest.approx(1 / 6)
    assert figures["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.04 + 0.01) / 5)
    assert figures["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.8, 0.9]).mean())
    assert figures["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert figures["reason"] is None


@pytest.mark.parametrize(
    ("truth", "score"), [([], []), ([1.0], [0.3]), ([0.0, 0.0], [0.1, 1.0]), ([1.0, 0.0], [1, 0])]
)
def test_degenerate_markers_are_null_and_json(truth, score):
    figures = binary_figures(np.array(truth), np.array(score, float), None)
    json.dumps(figures, allow_nan=False)
    assert set(figures) == set(binary_figures(np.array([0, 1]), np.array([0.1, 0.2]), 0.5))
    one_class = len(set(truth)) < 2
    assert (figures["auc"] is None) == one_class == (figures["reason"] is not None)


def test_grade_figures():
    grades = (2.0, 3.0, 4.0)
    probability = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6], [0.5, 0.3, 0.2]])
    truth = np.array([2.0, 3.0, 4.0, 4.0])
    figures = grade_figures(truth, probability, grades)
    assert figures["accuracy"] == pytest.approx(3 / 4)
    assert figures["balanced_accuracy"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert figures["macro_auc"] == pytest.approx(
        np.mean([naive_auc(truth == g, probability[:, i]) for i, g in enumerate(grades)])
    )
    one = grade_figures(np.array([4.0, 4.0]), probability[:2], grades)
    assert one["macro_auc"] is None and "one grade" in one["reason"]
    none = grade_figures(np.array([]), probability[:0], grades)
    assert none["accuracy"] is None
    json.dumps([figures, one, none], allow_nan=False)
    two = grade_figures(np.array([2.0, 4.0]), probability[:2], grades)
    assert two["reason"] == "no case of grade 3" and two["macro_auc"] is not None
