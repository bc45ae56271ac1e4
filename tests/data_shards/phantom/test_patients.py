"""Phantom patients: markers, types, labels."""

import numpy as np
import pytest

from gliomoe.data_shards.phantom.patients.markers import GLIOMA_TYPES
from gliomoe.data_shards.phantom.subject import CohortConfig, draw_subject


def test_markers_follow_the_types():
    config = CohortConfig(600, seed=3)
    subjects = [draw_subject(config, number) for number in range(1, 601)]
    for name, kind in GLIOMA_TYPES.items():
        ours = [s for s in subjects if s.glioma.who_type == name]
        assert len(ours) / 600 == pytest.approx(kind.share, abs=0.02)
        assert {(s.labels["idh"], s.labels["1p19q"]) for s in ours} == {(kind.idh, kind.codeletion)}
        tert = np.mean([s.labels["tert"] == "mutant" for s in ours])
        assert tert == pytest.approx(kind.tert_mutant, abs=0.1)
        assert {int(s.labels["grade"]) for s in ours} == set(kind.grades)
        ages = [s.age for s in ours]
        assert min(ages) >= 18
        assert np.mean(ages) == pytest.approx(np.mean([m for m, _ in kind.age.values()]), abs=4)


def test_every_short_cohort_holds_every_type():
    for seed in range(5):
        config = CohortConfig(10, seed=seed)
        types = {draw_subject(config, number).glioma.who_type for number in range(1, 11)}
        assert types == set(GLIOMA_TYPES)
