"""Splits are stratified, keep subjects together and repeat with a seed."""

import json
import math

import numpy as np
import pytest

from gliomoe.data_shards.errors import UsageError
from gliomoe.finetune.splits import Case, check_folds, make_splits, read_splits, write_splits


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


@pytest.mark.parametrize("seed", range(20))
def test_cohorts_of_any_make_up(seed):
    """1 to 3 sessions a subject, tiny classes, labels missing at random."""
    rng = np.random.default_rng(seed)
    cases = []
    for i in range(int(rng.integers(12, 40))):
        targets = {"seg": 1.0, "idh": float(i < 5), "grade": float(rng.choice([2, 3, 4, math.nan]))}
        cases += [Case(f"{i}_{s}", str(i), targets) for s in range(rng.integers(1, 4))]
    splits = make_splits(cases, None, 5, seed)
    subject = {case.key: case.subject for case in cases}
    assert sorted(splits.keys) == sorted(subject) and not splits.unused
    mutants = {case.subject for case in cases if case.targets["idh"]}
    for fold in splits.folds:
        held_out = {subject[key] for key in fold.validation}
        assert held_out and not held_out & {subject[key] for key in fold.train}
        assert sorted((*fold.train, *fold.validation)) == sorted(subject)
        assert mutants - held_out  # five mutants never validate together


def test_a_class_of_one_subject_for_each_fold():
    cases = [Case(str(i), str(i), {"idh": float(i < 4)}) for i in range(20)]
    for fold in make_splits(cases, None, 4, 3).folds:
        assert sum(int(key) < 4 for key in fold.validation) == 1


def checked(labels: list[float], folds: int = 2, task: str = "idh") -> None:
    cases = {str(i): Case(str(i), str(i), {task: label}) for i, label in enumerate(labels)}
    check_folds(make_splits(list(cases.values()), None, folds, 0), cases, [task])


def test_folds_that_cannot_learn_are_refused():
    nan = math.nan
    checked([0, 1, 0, 1])
    checked([1, 1, 1, nan], task="seg")
    with pytest.raises(UsageError, match="task idh: all 3 labels among the chosen cases are 0, so"):
        checked([0, 0, 0, nan])
    with pytest.raises(UsageError, match=r"no validation case has a label of task seg \(2 of 6 "):
        checked([1, 1, nan, nan, nan, nan], folds=3, task="seg")
    with pytest.raises(UsageError, match=r"has a label of task seg \(1 of 4 cases have one\)"):
        checked([1, nan, nan, nan], task="seg")


def test_a_fold_of_one_class_is_told(caplog):
    checked([0, 0, 0, 0, 0, 1])
    (message,) = caplog.messages
    assert "all training cases with a label of idh are 0; it learns nothing of it" in message


def test_file_round_trip(tmp_path):
    splits = make_splits(cohort(), 20, 5, 0)
    path = tmp_path / "splits.json"
    write_splits(path, splits)
    assert read_splits(path, cohort()) == splits
    with pytest.raises(
        UsageError, match="19 of its 20 cases have no data or no labels: s.* in all"
    ):
        read_splits(path, [case for case in cohort() if case.key == splits.keys[0]])
    path.write_text("{}")
    with pytest.raises(UsageError, match="cannot be read as splits"):
        read_splits(path, [])


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([("a", "b"), ("a", "b")], "b validate in several folds; keep one"),
        ([("a", "b"), ("b", "")], "fold 1 needs training and validation cases"),
        ([("ab", "b"), ("b", "a")], "fold 0 trains on the subjects of its validation cases b;"),
        ([("ax", "b"), ("b", "a")], "1 of its 3 cases have no data or no labels: x;"),
        ([("ab", "c")], "fold 0 trains on the subjects of its validation cases c;"),
    ],
)
def test_splits_written_by_hand(tmp_path, folds, message):
    path = tmp_path / "splits.json"
    content = [{"train": list(train), "validation": list(held)} for train, held in folds]
    path.write_text(json.dumps({"format": 1, "folds": content, "unused": []}))
    cases = [Case("a", "a", {}), Case("b", "b", {}), Case("c", "b", {})]
    with pytest.raises(UsageError, match=message):
        read_splits(path, cases)
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(UsageError, match="has format version 2, this program reads 1"):
        read_splits(path, cases)
