"""Figures of a study from the tables of its runs."""

import csv

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from gliomoe.finetune.metrics.crossed import crossed_mean
from gliomoe.launch.studies.rows import case_values, measure_rows

GRADES = (2, 4, 3, 4, 2, 3)


@pytest.fixture
def table(tmp_path):
    """The table of six cases: one without a segmentation, one without IDH."""
    rng = np.random.default_rng(0)
    lines = []
    for n, grade in enumerate(GRADES):
        p = rng.dirichlet([1, 1, 1])
        lines.append(
            {"key": f"case-{n}", "mean_dice": "" if n == 5 else f"{0.1 * n}",
             "idh_p": f"{rng.random()}", "idh_label": ["0", "1", "1", "0", "1", ""][n],
             "tert_p": f"{rng.random()}", "tert_label": "1",
             **{f"grade_p{g}": f"{p[g - 2]}" for g in (2, 3, 4)}, "grade_label": f"{grade}"}
        )  # fmt: skip
    path = tmp_path / "cases.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    return path, lines


def test_values_of_cases_have_the_figures_as_their_means(table):
    path, lines = table
    keys, values = case_values(path)
    assert keys == [f"case-{n}" for n in range(6)]
    assert values["Dice mean"] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    known = lines[:5]
    area = roc_auc_score([int(x["idh_label"]) for x in known], [float(x["idh_p"]) for x in known])
    assert values["AUC IDH"].mean() == pytest.approx(area)
    probabilities = np.array([[float(x[f"grade_p{g}"]) for g in (2, 3, 4)] for x in lines])
    areas = roc_auc_score(GRADES, probabilities, multi_class="ovr", labels=[2, 3, 4])
    assert values["AUC grade"].mean() == pytest.approx(areas)
    assert values["AUC TERT"].size == 0  # of one class only
    assert set(values) == {"Dice mean", "AUC IDH", "AUC grade", "AUC TERT"}


def test_a_gain_is_paired_by_seed_and_case():
    rng = np.random.default_rng(1)
    base = rng.random((3, 20))
    ours = base + 0.05 + 0.01 * rng.normal(size=(3, 20))
    (row,) = measure_rows({"Dice mean": ours}, {"Dice mean": base})
    gain = crossed_mean(ours - base)
    assert row["value"] == pytest.approx(ours.mean())
    assert row["seed_sd"] == pytest.approx(np.std(ours.mean(1), ddof=1))
    assert (row["seeds"], row["cases"]) == (3, 20)
    assert (row["difference_low"], row["difference_high"]) == gain.interval
    assert row["difference_low"] > 0 > row["low"] - row["value"]
    assert row["p_value"] == gain.p_value < 1e-3


def test_the_baseline_has_no_gain_and_what_cannot_be_measured_a_reason():
    dice, area = measure_rows(
        {"Dice mean": np.full((2, 3), 0.5), "AUC IDH": np.empty((2, 0))}, None
    )
    assert "difference" not in dice
    assert (dice["value"], dice["reason"]) == (0.5, "the same for all: no variance")
    assert (area["value"], area["reason"]) == (None, "fewer than two cases of a class")
