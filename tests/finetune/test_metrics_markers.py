"""Figures of markers against scikit-learn, naive references and hand-computed cases."""

import itertools
import json

import numpy as np
import pytest
from sklearn import metrics as sk

from gliomoe.finetune.metrics.auc import delong_auc
from gliomoe.finetune.metrics.intervals import bootstrap_mean, bootstrap_ratio, resample
from gliomoe.finetune.metrics.markers import (
    BINARY,
    binary_figures,
    calibration_figures,
    grade_figures,
    with_intervals,
    youden_threshold,
)
from gliomoe.finetune.metrics.reliability import Forecasts

GRADES = (2.0, 3.0, 4.0)


def naive_auc(truth, score) -> float:
    pairs = itertools.product(score[truth == 1], score[truth == 0])
    return float(np.mean([1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs]))


def scores(seed: int = 0, count: int = 25):
    rng = np.random.default_rng(seed)
    truth = (np.arange(count) % 3 == 0).astype(float)
    return truth, np.round(rng.random(count) * 0.6 + truth * 0.3, 1).clip(0, 1)


def values(figures: dict) -> dict:
    return {k: v["value"] for k, v in figures.items() if isinstance(v, dict) and "value" in v}


@pytest.mark.parametrize("seed", range(4))
def test_binary_figures_against_scikit_learn(seed):
    truth, score = scores(seed)
    called = score >= 0.45
    expected = {
        "auc": naive_auc(truth, score),
        "average_precision": sk.average_precision_score(truth, score),
        "accuracy": sk.accuracy_score(truth, called),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, called),
        "sensitivity": sk.recall_score(truth, called),
        "specificity": sk.recall_score(truth, called, pos_label=0),
        "precision": sk.precision_score(truth, called),
        "f1": sk.f1_score(truth, called),
        "mcc": sk.matthews_corrcoef(truth, called),
    }
    assert values(binary_figures(truth, score, 0.45)) == pytest.approx(expected)


def test_intervals_against_a_loop_over_samples():
    truth, score = scores(1)
    called = score >= 0.5
    figures = binary_figures(truth, score, None)
    draws = []
    for weights in resample(len(truth), truth)[:150].astype(int):
        y, s, c = (np.repeat(a, weights) for a in (truth, score, called))
        assert y.sum() == truth.sum()
        draws.append([sk.average_precision_score(y, s), sk.matthews_corrcoef(y, c)])
    for name, column in zip(("average_precision", "mcc"), np.transpose(draws), strict=True):
        low, high = figures[name]["interval"]
        assert np.quantile(column, [0.025, 0.975]) == pytest.approx((low, high), abs=0.1)
        assert low <= figures[name]["value"] <= high


def test_nothing_called_positive():
    figures = values(binary_figures(np.array([1, 1, 0]), np.array([0.1, 0.2, 0.3]), 0.9))
    assert (figures["precision"], figures["f1"], figures["mcc"]) == (0, 0, 0)
    assert (figures["sensitivity"], figures["specificity"]) == (0, 1)


@pytest.mark.parametrize(
    ("truth", "score"), [([], []), ([1.0], [0.3]), ([0.0, 0.0], [0.1, 1.0]), ([1.0, 0.0], [1, 0])]
)
def test_degenerate_markers_are_null_and_json(truth, score):
    figures = binary_figures(np.array(truth), np.array(score, float), None)
    json.dumps(figures, allow_nan=False)
    assert set(figures) == {"cases", "positive", "threshold", "threshold_from", *BINARY, "reason"}
    one_class = len(set(truth)) < 2
    assert (figures["auc"] is None) == one_class == (figures["reason"] is not None)
    if truth == [0.0, 0.0]:
        assert figures["specificity"]["value"] == 0.5 and figures["sensitivity"] is None
    if len(truth) == 1:
        assert figures["accuracy"] == {"value": 0.0, "interval": None}


def test_auc_interval_by_hand():
    truth, score = np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.6, 0.2])
    auc = delong_auc(truth, score)
    assert auc.value == 0.75
    error = np.sqrt(0.125 / 2 + 0.125 / 2)  # placements 1, 0.5 of both classes
    assert auc.interval == (pytest.approx(0.75 - 1.959964 * error), 1.0)
    assert delong_auc(np.array([1, 0, 0]), np.array([0.9, 0.2, 0.3])).interval is None


def test_bootstrap_interval():
    sample = np.random.default_rng(1).normal(0.7, 0.1, 200)
    low, high = bootstrap_mean(sample)
    error = sample.std(ddof=1) / np.sqrt(200)
    assert low == pytest.approx(sample.mean() - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(sample.mean() + 1.96 * error, abs=0.25 * error)
    assert bootstrap_mean(sample) == (low, high)
    assert bootstrap_mean(np.array([0.5])) is None
    assert bootstrap_mean(np.array([0.5, 0.5])) == pytest.approx((0.5, 0.5))


def test_bootstrap_of_a_ratio_leaves_empty_samples_out():
    low, high = bootstrap_ratio(np.array([1, 0, 0]), np.array([2, 0, 0]))
    assert (low, high) == pytest.approx((0.5, 0.5))
    assert bootstrap_ratio(np.array([0, 0]), np.array([0, 0])) is None


def test_youden_is_the_best_of_all_cuts():
    truth, score = scores(3)

    def youden(threshold):
        called = score >= threshold
        return called[truth == 1].mean() - called[truth == 0].mean()

    best = max(youden(t) for t in np.linspace(-0.05, 1.05, 221))
    assert youden(youden_threshold(truth, score)) == pytest.approx(best)
    assert youden_threshold(np.array([0, 1]), np.array([0.2, 0.6])) == pytest.approx(0.4)
    assert youden_threshold(np.array([1, 1]), np.array([0.2, 0.6])) is None


def test_grade_figures():
    probability = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6], [0.5, 0.3, 0.2]])
    truth = np.array([2.0, 3.0, 4.0, 4.0])
    figures = grade_figures(truth, probability, GRADES)
    found = values(figures)
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["balanced_accuracy"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["macro_auc"] == pytest.approx(
        sk.roc_auc_score(truth, probability, multi_class="ovr", average="macro")
    )
    one = grade_figures(np.array([4.0, 4.0]), probability[:2], GRADES)
    assert one["macro_auc"] is None and "one grade" in one["reason"]
    none = grade_figures(np.array([]), probability[:0], GRADES)
    assert none["accuracy"] is None
    json.dumps([figures, one, none], allow_nan=False)
    two = grade_figures(np.array([2.0, 4.0]), probability[:2], GRADES)
    assert two["reason"] == "no case of grade 3" and two["macro_auc"] is not None


def test_calibration_of_a_binary_marker_by_hand():
    truth, score = np.array([1, 1, 0, 0, 0]), np.array([0.9, 0.4, 0.6, 0.2, 0.1])
    forecasts = Forecasts.of_binary(truth, score)
    figures = calibration_figures(forecasts, truth)
    assert figures["brier"]["value"] == pytest.approx(sk.brier_score_loss(truth, score))
    assert figures["log_loss"]["value"] == pytest.approx(sk.log_loss(truth, score))
    assert figures["ece"]["value"] == pytest.approx((0.1 + 0.6 + 0.6 + 0.2 + 0.1) / 5)
    bins = figures["reliability"]
    assert [b["count"] for b in bins] == [0, 1, 1, 0, 1, 0, 1, 0, 0, 1]
    assert (bins[4]["predicted"], bins[4]["observed"]) == (0.4, 1.0)
    assert (bins[0]["predicted"], bins[0]["observed"]) == (None, None)


def test_ece_joins_cases_of_a_bin():
    score = np.array([0.05, 0.05, 0.95, 0.95])

    def ece(truth):
        return Forecasts.of_binary(np.array(truth), score).figures(np.ones((1, 4)))["ece"][0]

    assert ece([0, 0, 1, 1]) == pytest.approx(0.05)
    assert ece([1, 0, 1, 1]) == pytest.approx(0.25)


def test_calibration_of_the_grade():
    rng = np.random.default_rng(0)
    probability = rng.dirichlet([1, 1, 1], 30)
    index = rng.integers(0, 3, 30)
    figures = Forecasts.of_classes(index, probability).figures(np.ones((1, 30)))
    assert figures["log_loss"][0] == pytest.approx(sk.log_loss(index, probability))
    assert figures["brier"][0] == pytest.approx(np.mean((probability - np.eye(3)[index]) ** 2) * 3)
    top, hit = probability.max(1), probability.argmax(1) == index
    bins = [(top * 10).astype(int) == b for b in range(10)]
    gap = sum(b.mean() * abs(top[b].mean() - hit[b].mean()) for b in bins if b.any())
    assert figures["ece"][0] == pytest.approx(gap)


def test_certain_and_wrong_is_finite():
    figures = Forecasts.of_binary(np.array([1, 0]), np.array([0.0, 1.0])).figures(np.ones((1, 2)))
    assert figures["log_loss"][0] == pytest.approx(-np.log(1e-7))
    assert calibration_figures(Forecasts.of_binary(np.zeros(0), np.zeros(0)), np.zeros(0)) == {
        "log_loss": None,
        "brier": None,
        "ece": None,
        "reliability": [],
    }


def test_a_figure_that_does_not_exist_is_none():
    found = with_intervals(lambda w: {"a": np.full(len(w), np.nan)}, np.array([0, 1]))
    assert found == {"a": None}
