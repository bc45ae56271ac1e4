"""Means over seeds and cases, against slow and independent ways to the same figures."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from gliomoe.finetune.metrics.crossed import auc_pseudo_values, crossed_mean
from gliomoe.finetune.metrics.paired import delong_test


def drawn(rng, seeds, cases, of_seed, of_case, rest):
    """A figure without effect: mean 0, spread by seed, by case and beyond."""
    by_seed = of_seed * rng.normal(size=(seeds, 1))
    return by_seed + of_case * rng.normal(size=(1, cases)) + rest * rng.normal(size=(seeds, cases))


def squares_left(columns, target):
    """Residual sum of squares of a least-squares fit."""
    fitted = columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
    return float(((target - fitted) ** 2).sum())


def test_interval_is_that_of_the_two_way_analysis_of_variance():
    seeds, cases = 4, 9
    values = 0.3 + drawn(np.random.default_rng(1), seeds, cases, 0.2, 0.5, 0.3)
    target = values.ravel()
    of_seed = np.repeat(np.eye(seeds), cases, 0)
    of_case = np.tile(np.eye(cases), (seeds, 1))
    both = squares_left(np.hstack([of_seed, of_case]), target)
    by_seed = (squares_left(of_case, target) - both) / (seeds - 1)
    by_case = (squares_left(of_seed, target) - both) / (cases - 1)
    beyond = by_case - both / ((seeds - 1) * (cases - 1))
    assert beyond > 0
    freedom = (by_seed + beyond) ** 2 / (by_seed**2 / (seeds - 1) + beyond**2 / (cases - 1))
    error = np.sqrt((by_seed + beyond) / target.size)

    found = crossed_mean(values)

    assert found.value == pytest.approx(target.mean())
    expected = stats.t.interval(0.95, freedom, target.mean(), error)
    assert found.interval == pytest.approx(expected)
    assert found.p_value == pytest.approx(2 * stats.t.sf(target.mean() / error, freedom))
    assert found.reason is None


@pytest.mark.parametrize(
    ("seeds", "cases", "spread"),
    [(5, 100, (0.03, 0.05, 0.1)), (5, 100, (0, 0.1, 0.1)), (5, 7, (0.01, 0.1, 0.1))],
)
def test_an_interval_of_five_seeds_covers_the_truth_as_often_as_it_says(seeds, cases, spread):
    rng = np.random.default_rng(0)
    found = [crossed_mean(drawn(rng, seeds, cases, *spread)).interval for _ in range(1500)]
    assert 0.93 < np.mean([low <= 0 <= high for low, high in found]) < 0.97


def test_many_seeds_agree_with_the_bootstrap_over_seeds_and_cases():
    rng = np.random.default_rng(3)
    values = drawn(rng, 60, 80, 0.1, 0.1, 0.1)
    draws = [
        values[rng.integers(60, size=60)][:, rng.integers(80, size=80)].mean() for _ in range(2000)
    ]
    low, high = crossed_mean(values).interval
    assert (low, high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.1 * (high - low))


def test_a_single_seed_speaks_for_the_cases_alone():
    values = np.array([[0.1, 0.4, 0.3, 0.2]])
    found = crossed_mean(values)
    expected = stats.ttest_1samp(values[0], 0)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.reason == "a single seed: over cases alone"


def test_without_spread_there_is_no_interval_but_of_nothing():
    same = crossed_mean(np.zeros((3, 4)))
    assert (same.value, same.interval, same.p_value) == (0.0, (0.0, 0.0), 1.0)
    shifted = crossed_mean(np.full((3, 4), 0.2))
    assert (shifted.value, shifted.interval, shifted.p_value) == (pytest.approx(0.2), None, None)
    assert shifted.reason == "the same for all: no variance"
    alone = crossed_mean(np.array([[0.5], [0.7]]))
    assert (alone.value, alone.interval) == (pytest.approx(0.6), None)
    assert alone.reason == "a single case"


def test_pseudo_values_are_those_of_leaving_each_case_out():
    rng = np.random.default_rng(2)
    truth = np.array([0, 1, 1, 0, 0, 1, 0, 0])
    score = rng.integers(0, 4, 8) / 4  # with ties
    area = roc_auc_score(truth, score)
    expected = [
        8 * area - 7 * roc_auc_score(np.delete(truth, i), np.delete(score, i)) for i in range(8)
    ]
    found = auc_pseudo_values(truth, score)
    assert found == pytest.approx(expected)
    assert found.mean() == pytest.approx(area)


def test_a_difference_of_auc_comes_near_to_delongs_for_a_single_seed():
    rng = np.random.default_rng(4)
    truth = np.arange(120) % 3 == 0
    ours, other = (truth + rng.normal(scale=s, size=120) for s in (0.8, 1.2))
    found = crossed_mean((auc_pseudo_values(truth, ours) - auc_pseudo_values(truth, other))[None])
    expected = delong_test(truth, ours, other)
    assert found.value == pytest.approx(expected.difference)
    assert found.interval == pytest.approx(expected.interval, abs=0.01)
