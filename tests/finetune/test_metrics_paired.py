"""Comparison of two runs against naive references and hand-computed cases; referral."""

import itertools

import numpy as np
import pytest
from scipy import stats

from gliomoe.finetune.metrics.paired import delong_test, holm, mcnemar_test, wilcoxon_test
from gliomoe.finetune.metrics.referral import aurc, kept_risk


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


def scores(count: int = 25):
    rng = np.random.default_rng(0)
    truth = (np.arange(count) % 3 == 0).astype(float)
    a = np.round(rng.random(count) * 0.6 + truth * 0.3, 1).clip(0, 1)
    return truth, a, np.round(rng.random(count), 1)


def test_delong_against_naive():
    truth, a, b = scores()
    test = delong_test(truth, a, b)
    error = np.sqrt(naive_delong_variance(truth, a, b))
    assert test.difference == pytest.approx(naive_auc(truth, a) - naive_auc(truth, b))
    assert test.interval == pytest.approx(
        (test.difference - 1.959964 * error, test.difference + 1.959964 * error)
    )
    assert test.p_value == pytest.approx(2 * stats.norm.sf(abs(test.difference) / error))


@pytest.mark.parametrize("other", [lambda a: a, lambda a: a + 1e-9, lambda a: a**2])
def test_delong_of_equal_orders(other):
    truth, a, _ = scores()
    test = delong_test(truth, a, other(a))
    assert (test.difference, test.interval, test.p_value) == (0, (0, 0), 1.0)


def test_delong_without_variance():
    truth = np.array([1, 1, 0, 0])
    test = delong_test(truth, truth.astype(float), 1.0 - truth)
    assert test.difference == 1 and test.p_value is None and "no variance" in test.reason
    single = delong_test(np.array([1, 0, 0]), np.array([0.9, 0.2, 0.3]), np.array([0.1, 0.2, 0.3]))
    assert (single.difference, single.p_value) == (1, None) and "single case" in single.reason


def naive_signed_rank(difference: np.ndarray) -> float:
    """Exact two-sided p of the signed-rank test over all 2ⁿ signs, for distinct sizes."""
    ranks = np.argsort(np.argsort(np.abs(difference))) + 1
    observed = ranks[difference > 0].sum()
    sums = [
        sum(r for r, s in zip(ranks, signs, strict=True) if s)
        for signs in itertools.product([0, 1], repeat=len(ranks))
    ]
    centre = ranks.sum() / 2
    return float(np.mean(np.abs(np.array(sums) - centre) >= abs(observed - centre)))


def test_wilcoxon_against_all_signs():
    ours = np.array([0.81, 0.75, 0.9, 0.62, 0.55, 0.93, 0.7])
    other = np.array([0.8, 0.7, 0.79, 0.66, 0.33, 0.91, 0.73])
    test = wilcoxon_test(ours, other)
    assert test.difference == pytest.approx((ours - other).mean())
    assert test.p_value == pytest.approx(naive_signed_rank(ours - other))
    assert test.interval[0] <= test.difference <= test.interval[1]


def test_wilcoxon_of_equal_runs_and_of_one_case():
    same = wilcoxon_test(np.array([0.1 + 0.2, 0.5]), np.array([0.3, 0.5]))
    assert (same.difference, same.interval, same.p_value) == (0, (0, 0), 1.0)
    one = wilcoxon_test(np.array([0.5]), np.array([0.4]))
    assert one.difference == pytest.approx(0.1)
    assert one.interval is None and one.p_value is None and one.reason == "a single case"


def test_mcnemar_by_hand():
    ours = np.array([1, 1, 1, 1, 1, 0, 1], bool)
    other = np.array([0, 0, 0, 0, 0, 1, 1], bool)
    test = mcnemar_test(ours, other)
    assert test.difference == pytest.approx(4 / 7)
    assert test.p_value == pytest.approx(2 * (1 + 6) / 2**6)  # P(0 or 1 of 6), both sides
    same = mcnemar_test(ours, ours)
    assert (same.difference, same.interval, same.p_value) == (0, (0, 0), 1.0)
    assert mcnemar_test(ours[:1], other[:1]).interval is None


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def naive_aurc(risk, confidence) -> float:
    """Mean over all orders in which confidence falls."""
    found = []
    for order in itertools.permutations(range(len(risk))):
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order)):
            picked = [risk[i] for i in order]
            found.append(np.mean([np.mean(picked[: k + 1]) for k in range(len(picked))]))
    return float(np.mean(found))


def test_aurc_against_all_orders():
    risk = np.array([0.1, 0.5, 0.9, 0.2, 0.4])
    for confidence in ([5, 4, 3, 2, 1], [1, 1, 1, 1, 1], [2, 1, 2, 1, 3.0]):
        found = aurc(risk, np.array(confidence, float))
        assert found == pytest.approx(naive_aurc(risk, confidence))
    assert aurc(risk, np.zeros(5)) == pytest.approx(risk.mean())
    assert aurc(risk, -risk) <= found
    assert aurc(np.array([0.3]), np.array([0.1])) == pytest.approx(0.3)


def test_referral_by_hand():
    risk = np.array([0.0] * 18 + [0.9, 0.9])
    assert kept_risk(risk, -risk) == 0  # two of twenty are referred, the two worst
    assert kept_risk(risk, risk) == pytest.approx(1.8 / 18)
    assert kept_risk(risk, np.zeros(20)) == pytest.approx(risk.mean())
    assert kept_risk(risk[:3], -risk[:3]) == 0
