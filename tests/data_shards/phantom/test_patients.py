"""Phantom patients: markers, traits, and what they tell."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
from scipy import integrate, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gliomoe.data_shards.phantom.config import CohortConfig
from gliomoe.data_shards.phantom.patients.ceiling import (
    MARKERS,
    auc,
    ceiling,
    ceiling_of,
    draw_population,
    features_of,
    latent_features,
    posterior,
    trait_row,
    traits_of,
    truth,
)
from gliomoe.data_shards.phantom.patients.looks import LOOKS, TRAIT_DESCRIPTIONS, TRAITS
from gliomoe.data_shards.phantom.patients.markers import (
    GLIOMA_TYPES,
    draw_glioma,
    draw_type,
    state_shares,
)
from gliomoe.data_shards.phantom.patients.traits import (
    Bernoulli,
    Categorical,
    LogNormal,
    Normal,
    Rounded,
)
from gliomoe.data_shards.phantom.subject import draw_subject

STATES = list(state_shares())


@pytest.fixture(scope="module")
def population():
    """States, traits, ages, men of many patients."""
    index, *rest = draw_population(20_000, np.random.default_rng(7))
    return [STATES[i] for i in index], *rest


def test_markers_follow_the_types():
    config = CohortConfig(600, seed=3)
    subjects = [draw_subject(config, number) for number in range(1, 601)]
    for name, kind in GLIOMA_TYPES.items():
        ours = [s for s in subjects if s.glioma.who_type == name]
        assert len(ours) / 600 == pytest.approx(kind.share, abs=0.02)
        assert {(s.labels["idh"], s.labels["1p19q"]) for s in ours} == {(kind.idh, kind.codeletion)}
        tert = np.mean([s.labels["tert"] == "mutant" for s in ours])
        expected = sum(kind.grades[grade] * kind.tert[grade] for grade in kind.grades)
        assert tert == pytest.approx(expected, abs=0.1)
        assert {int(s.labels["grade"]) for s in ours} == set(kind.grades)
        assert 18 <= min(s.age for s in ours) <= max(s.age for s in ours) <= 89


def test_ages_as_published():
    rng = np.random.default_rng(0)
    ages = {("wildtype", "mutant"): [], ("mutant", "wildtype"): []}
    for who_type in ("glioblastoma", "astrocytoma"):
        for _ in range(1500):
            glioma, age, _ = draw_glioma(who_type, rng)
            ages.get((glioma.idh, glioma.tert), []).append(age)
    # Eckel-Passow et al., NEJM 2015: with TERT alone 59 years, with IDH alone 37.
    assert np.mean(ages["wildtype", "mutant"]) == pytest.approx(59, abs=1.5)
    assert np.mean(ages["mutant", "wildtype"]) == pytest.approx(37, abs=1.5)


def test_every_short_cohort_holds_every_type():
    for seed in range(5):
        config = CohortConfig(10, seed=seed)
        types = {draw_subject(config, number).glioma.who_type for number in range(1, 11)}
        assert types == set(GLIOMA_TYPES)


def test_resection_is_drawn_whatever_the_marker(gliomas):
    some = gliomas(1500, resected=0.3)
    for name in GLIOMA_TYPES:
        ours = [glioma.resected for glioma in some if glioma.who_type == name]
        assert np.mean(ours) == pytest.approx(0.3, abs=0.08)
    none = gliomas(1500)
    assert not any(glioma.resected for glioma in none)
    assert [dataclasses.replace(glioma, resected=False) for glioma in some] == none


def test_a_rim_needs_a_ring_and_mismatch_none(gliomas):
    some = gliomas(1000)
    assert any(glioma.mismatch for glioma in some)
    assert all(glioma.enhancement == "none" for glioma in some if glioma.mismatch)
    for glioma in some:
        row = trait_row(glioma)
        assert list(row) == list(TRAIT_DESCRIPTIONS) == list(TRAITS)
        assert (row["rim_mm"] == "n/a") == (glioma.enhancement != "ring")
        assert row["cortical"] in "01" and row["lobe"] == glioma.lobe


CONTINUOUS = [
    Normal(4, 2, 0, 32),
    Normal(-3, 2, 0, 10),
    LogNormal(38, 0.55, 8, 120),
    LogNormal(2.6, 0.17, 1.5, 4.2),
]


@pytest.mark.parametrize("distribution", CONTINUOUS, ids=str)
def test_continuous_draws_follow_their_density(distribution):
    low, high = distribution.low, distribution.high

    def density(value):
        return np.exp(distribution.log_density(value))

    assert integrate.quad(density, low, high)[0] == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(density(np.array([low - 0.1, high + 0.1])), 0)
    draws = distribution.draw(np.random.default_rng(1), 4000)
    places = np.linspace(low, high, 2001)
    below = np.interp(
        draws, places, integrate.cumulative_simpson(density(places), x=places, initial=0)
    )
    assert stats.kstest(below, "uniform").pvalue > 0.01
    assert low <= draws.min() and draws.max() <= high


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (Bernoulli(0.3), [True, False]),
        (Categorical({"a": 0.5, "b": 0.3, "c": 0.2}), ["a", "b", "c"]),
        (Categorical({0: 0.7, 1: 0.2, 2: 0.1}), [0, 1, 2]),
        (Rounded(Normal(21, 4, 17.5, 25.5)), list(range(18, 26))),
    ],
    ids=str,
)
def test_discrete_draws_follow_their_probabilities(distribution, values):
    chances = np.exp(distribution.log_density(np.array(values)))
    assert chances.sum() == pytest.approx(1, abs=1e-9)
    draws = distribution.draw(np.random.default_rng(2), 5000)
    counts = [np.count_nonzero(draws == value) for value in values]
    assert sum(counts) == 5000
    assert stats.chisquare(counts, chances * 5000).pvalue > 0.01


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(ValueError, match="sum to 1"):
        Categorical({"a": 0.5, "b": 0.4})


def test_every_look_is_a_distribution():
    """The density of whole tumours integrates to 1: by importance sampling from another state."""
    rng = np.random.default_rng(0)
    flat = dataclasses.replace(
        LOOKS["astrocytoma", 4, "wildtype"],
        oedema_mm=Normal(10, 20, 0, 32),
        core_ml=LogNormal(32, 2, 8, 120),
        infiltration_mm=LogNormal(2.5, 1, 1.5, 4.2),
        texture=LogNormal(0.07, 1, 0.025, 0.2),
        rim_mm=Normal(5, 4, 3, 11),
    )
    traits = flat.draw(rng, 60_000)
    for look in LOOKS.values():
        ratio = np.exp(look.log_density(traits) - flat.log_density(traits))
        assert ratio.mean() == pytest.approx(1, abs=0.12)


def test_posterior_is_that_of_counting():
    """Three traits alone, each cut in few parts: Bayes' rule against shares among many drawn."""
    rng = np.random.default_rng(5)
    index, traits, *_ = draw_population(200_000, rng)
    states = [STATES[i] for i in range(len(STATES))]
    codeleted = np.array([state[0] == "oligodendroglioma" for state in states])
    names = ("enhancement", "calcified", "cortical")
    for enhancement, calcified, cortical in itertools.product(
        ("none", "patchy", "ring"), (True, False), (True, False)
    ):
        values = dict(zip(names, (enhancement, calcified, cortical), strict=True))
        same = np.all([traits[name] == value for name, value in values.items()], axis=0)
        counted = codeleted[index[same]].mean()
        joint = np.array(
            [
                share
                * np.prod(
                    [np.exp(getattr(LOOKS[state], n).log_density(v)) for n, v in values.items()]
                )
                for state, share in state_shares().items()
            ]
        )
        exact = joint[codeleted].sum() / joint.sum()
        error = np.sqrt(exact * (1 - exact) / same.sum())
        assert counted == pytest.approx(exact, abs=5 * error + 1e-4)
        # The posterior of all traits averages to that of three of them.
        whole = posterior({name: column[same] for name, column in traits.items()})["1p19q"]
        assert whole.mean() == pytest.approx(exact, abs=5 * error + 1e-4)


def test_posterior_is_calibrated(population):
    states, traits, age, male = population
    true = truth(states)
    for known in ((traits, None, None), (traits, age, male), (None, age, male)):
        estimated = posterior(*known)
        np.testing.assert_allclose(estimated["grade"].sum(-1), 1)
        for marker in ("idh", "1p19q", "tert", "grade_high", "grade_4"):
            scores = np.broadcast_to(estimated[marker], len(states))
            for part in np.array_split(np.argsort(scores, kind="stable"), 8):
                error = np.sqrt(np.sum(scores[part] * (1 - scores[part]))) / len(part)
                assert np.mean(true[marker][part]) == pytest.approx(
                    scores[part].mean(), abs=4 * error + 2e-3
                )


def test_scalar_draws_come_from_the_population(tumours, population):
    """`draw_glioma` and `draw_population` agree, trait by trait."""
    _, theirs, *_ = population
    ours = traits_of(tumours)
    for name in TRAITS:
        if ours[name].dtype.kind == "f":
            assert stats.ks_2samp(ours[name], theirs[name]).pvalue > 1e-3
        else:
            for value in np.unique(theirs[name]):
                share = np.mean(theirs[name] == value)
                error = np.sqrt(share * (1 - share) / len(tumours))
                assert np.mean(ours[name] == value) == pytest.approx(share, abs=4.5 * error)


def test_auc_against_scikit_learn_and_counting():
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.3
    score = np.round(positive + 1.5 * rng.normal(size=400), 1)  # with ties
    area, error = auc(positive, score)
    assert area == pytest.approx(roc_auc_score(positive, score))
    resampled = []
    for _ in range(400):
        pick = rng.integers(400, size=400)
        resampled.append(roc_auc_score(positive[pick], score[pick]))
    assert error == pytest.approx(np.std(resampled), rel=0.15)
    classes = np.eye(3)[rng.integers(3, size=400)]
    scores = classes + rng.normal(size=(400, 3))
    each = [roc_auc_score(classes[:, c], scores[:, c]) for c in range(3)]
    assert auc(classes, scores)[0] == pytest.approx(np.mean(each))
    with pytest.raises(ValueError, match="both kinds"):
        auc(np.ones(5), np.arange(5))


@pytest.fixture(scope="module")
def top():
    return ceiling(seed=0)


def test_ceilings_lie_where_wanted(top):
    assert json.loads(json.dumps(top)) == top
    assert top == ceiling(seed=0)
    assert top != ceiling(seed=1)
    for marker in (*MARKERS, "grade_high", "grade_4"):
        figures = top["markers"][marker]
        assert 0.85 <= figures["imaging"]["auc"] <= 0.97
        assert figures["imaging"]["se"] < 0.004
        assert figures["imaging_age_sex"]["auc"] >= figures["imaging"]["auc"] - 0.003
        assert figures["age_sex"]["auc"] < min(figures["imaging"]["auc"] - 0.07, 0.85)


def test_a_plain_model_of_the_traits_reaches_the_ceiling(top, population):
    states, traits, age, male = population
    pick = np.random.default_rng(0).permutation(len(states))[:5000]
    true = truth([states[i] for i in pick])
    _, table = features_of({name: column[pick] for name, column in traits.items()})
    person = np.stack([age[pick], male[pick]], axis=1).astype(float)
    for marker in MARKERS:
        target = true[marker].argmax(1) if marker == "grade" else true[marker]
        best = top["markers"][marker]["imaging"]["auc"]
        reached = {}
        for name, columns in (("traits", table), ("person", person)):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            folds = StratifiedKFold(5, shuffle=True, random_state=0)
            score = cross_val_predict(model, columns, target, cv=folds, method="predict_proba")
            reached[name] = auc(true[marker], score if marker == "grade" else score[:, 1])[0]
        assert reached["traits"] == pytest.approx(best, abs=0.02)
        assert reached["person"] < best - 0.07


def test_ceiling_of_a_cohort(tumours, top):
    ours = ceiling_of(tumours)
    for marker, figures in ours.items():
        best = top["markers"][marker]["imaging"]["auc"]
        assert figures["auc"] == pytest.approx(best, abs=4 * figures["se"])
    wild = [glioma for glioma in tumours[:300] if glioma.idh == "wildtype"]
    assert ceiling_of(wild)["idh"] is None and ceiling_of(wild)["tert"] is not None


def test_latent_features(tumours):
    names, table = latent_features(tumours)
    assert table.shape == (len(tumours), len(names)) and np.isfinite(table).all()
    ring = np.array([glioma.enhancement == "ring" for glioma in tumours])
    assert not table[~ring, names.index("rim_mm")].any()
    np.testing.assert_array_equal(table[:, names.index("enhancement_ring")], ring)


def test_types_by_place():
    assert [draw_type(place) for place in (0, 0.49, 0.51, 0.79, 0.81, 1)] == [
        "glioblastoma",
        "glioblastoma",
        "astrocytoma",
        "astrocytoma",
        "oligodendroglioma",
        "oligodendroglioma",
    ]
