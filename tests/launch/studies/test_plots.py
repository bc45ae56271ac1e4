"""Plots of training studies: panels, lines and layout."""

import io

import numpy as np
import pytest

from gliomoe.launch.studies.plots import forest_figure, shots_figure, sizes_figure
from gliomoe.launch.studies.rows import measure_rows


@pytest.fixture
def rows():
    """Two arms on two cohorts, one marker of which there are too few cases in one."""
    rng = np.random.default_rng(0)
    found = []
    for cohort in ("A", "B"):
        for shots in (5, 10):
            base = {"Dice mean": rng.random((3, 9)), "AUC IDH": rng.random((3, 9))}
            if cohort == "B":
                base["AUC IDH"] = np.empty((3, 0))
            ours = {name: values + 0.1 for name, values in base.items()}
            ours["Dice mean"] = ours["Dice mean"] + 0.05 * rng.random((3, 9))
            for arm, values in (("scratch", base), ("ours", ours)):
                by = {"arm": arm, "shots": shots, "test": cohort}
                by["pretraining_studies"] = 0 if arm == "scratch" else 50
                found += [
                    {**by, **row} for row in measure_rows(values, base if arm == "ours" else None)
                ]
    return found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("draw", "panels", "legend"),
    [
        (shots_figure, 8, ["scratch", "ours"]),
        (sizes_figure, 8, ["5 labelled cases", "10 labelled cases"]),
        (forest_figure, 2, ["cohort A", "cohort B"]),
    ],
)
def test_every_measure_has_its_panels(rows, draw, panels, legend):
    figure = draw(rows)
    figure.savefig(io.BytesIO(), format="png")
    assert len(figure.axes) == panels
    assert {axis.get_title() for axis in figure.axes} - {""} == {"Dice mean", "AUC IDH"}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == legend
