"""Splits are stratified, keep subjects together and repeat with a seed."""

import math

import numpy as np
import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.splits import Case, make_splits, read_splits, write_splits


def cohort(count: int = 40, sessions: int = 1) -> list[Case]:
    rng = np.random.default_rng(0)
    cases = []
    for i in range(count):
        idh = float(rng.random() < 0.3)
        targets = {"seg": 1.0, "idh": idh, "grade": float(rng.integers(2, 5)), "tert": math.nan}
        for session in range(sessions):
            cases.append(Case(f"s{i:03d}_{session}", f"s{i:03d}", targets))
    return cases


def test_every_chosen_case_validates_once():
    splits = make_splits(cohort(), shots=20, folds=5, seed=1)
    assert len(splits.keys) == 20 == len(set(splits.keys))
    assert len(splits.unused) == 20 and not set(splits.unused) & set(splits.keys)
    for fold in splits.folds:
        assert not set(fold.train) & set(fold.validation)
        assert set(fold.train) | set(fold.validation) == set(splits.keys)
        assert len(fold.validation) == 4


def test_labels_spread_evenly():
    cases = cohort(60)
    splits = make_splits(cases, shots=30, folds=3, seed=3)
    by_key = {case.key: case for case in cases}
    share = np.mean([case.targets["idh"] for case in cases])
    chosen = np.mean([by_key[key].targets["idh"] for key in splits.keys])
    assert abs(chosen - share) <= 1 / 30 + 1e-9
    for task, value in (("idh", 1.0), ("grade", 2.0), ("grade", 3.0), ("grade", 4.0)):
        counts = [sum(by_key[k].targets[task] == value for k in f.validation) for f in splits.folds]
        assert max(counts) - min(counts) <= 1, (task, value, counts)


def test_sessions_of_a_subject_stay_together():
    cases = cohort(12, sessions=2)
    splits = make_splits(cases, shots=16, folds=4, seed=0)
    subject = {case.key: case.subject for case in cases}
    assert len(splits.keys) == 16
    for fold in splits.folds:
        assert not {subject[k] for k in fold.train} & {subject[k] for k in fold.validation}
    assert not {subject[k] for k in splits.keys} & {subject[k] for k in splits.unused}


def test_seed_decides_and_order_does_not():
    cases = cohort()
    assert make_splits(cases, 20, 5, 7) == make_splits(cases[::-1], 20, 5, 7)
    assert make_splits(cases, 20, 5, 7) != make_splits(cases, 20, 5, 8)


def test_fewer_subjects_than_folds():
    with pytest.raises(UsageError, match="2 labelled subjects cannot fill 5 folds"):
        make_splits(cohort(2, sessions=4), 20, 5, 0)


def test_file_round_trip(tmp_path):
    splits = make_splits(cohort(), 20, 5, 0)
    path = tmp_path / "splits.json"
    write_splits(path, splits)
    assert read_splits(path, [case.key for case in cohort()]) == splits
    with pytest.raises(UsageError, match="names cases without data or labels: s"):
        read_splits(path, ["s000_0"])
    path.write_text("{}")
    with pytest.raises(UsageError, match="cannot be read as splits"):
        read_splits(path, [])
