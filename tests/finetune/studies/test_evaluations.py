"""Studies of written evaluations: satellites, calibration, uncertainty."""

import csv
import json
import shutil

import numpy as np
import pytest

from gliomoe.finetune.studies.evaluations import Evaluated
from gliomoe.finetune.studies.satellites import satellite_rows
from gliomoe.finetune.studies.uncertainty import referral_rows
from gliomoe.launch.cli import main


def counted(name, found, data="test"):
    """Three cases with 1, 0 and 3 satellites of 3-5 mm; one without a segmentation."""
    cases = [
        {"key": f"case-{i}", "satellites_3-5": there, "satellites_3-5_found": hit,
         "WT_lesions_predicted": invented + 1, "WT_lesions_matched": 1}
        for i, (there, hit, invented) in enumerate(zip((1, 0, 3), found, (0, 1, 2), strict=True))
    ]  # fmt: skip
    cases.append({"key": "case-3"})
    columns = [f"satellites_{s}{e}" for s in ("<3", "3-5", "5-10", ">=10") for e in ("", "_found")]
    columns += ["WT_lesions_predicted", "WT_lesions_matched"]
    texts = [
        {"key": case["key"], **{c: "" if len(case) == 1 else str(case.get(c, 0)) for c in columns}}
        for case in cases
    ]
    return Evaluated(name, {"data": data}, texts)


def test_satellites_by_hand():
    first, other = counted("first", (1, 0, 1)), counted("other", (0, 0, 3))
    rows = {(r["size"], r["measure"]): r for r in satellite_rows(other, first)}
    small = rows["3-5", "found"]
    assert (small["satellites"], small["cases"], small["value"]) == (4, 3, 0.75)
    assert small["difference"] == pytest.approx((3 - 2) / 4)
    assert small["difference_low"] < 0 < small["difference_high"]
    assert rows["all", "found"]["value"] == 0.75
    assert rows["<3", "found"]["value"] is None
    invented = rows["all", "invented a case"]
    assert (invented["value"], invented["difference"], invented["p_value"]) == (1, 0, 1)


def test_other_data_are_not_paired():
    rows = satellite_rows(counted("other", (0, 0, 3), "b"), counted("first", (1, 0, 1), "a"))
    assert all(row.get("difference") is None for row in rows)


def test_referral_by_hand():
    risk, sure = np.array([0.1, 0.9, 0.2, 0.4, 0.4]), np.array([5.0, 1, 4, 3, 2])
    rows = {row["measure"]: row for row in referral_rows("run", "seg", risk, sure)}
    assert rows["0% referred"]["value"] == pytest.approx(0.6)
    assert rows["10% referred"]["cases"] == 5  # a tenth of five cases is none
    kept = rows["20% referred"]
    assert (kept["cases"], kept["value"]) == (4, pytest.approx(1 - 1.1 / 4))
    assert kept["difference"] == pytest.approx(1 - 1.1 / 4 - 0.6)
    assert kept["low"] <= kept["value"] <= kept["high"]
    area = np.mean([0.1, 0.15, 0.7 / 3, 1.1 / 4, 0.4])
    assert rows["AURC"]["value"] == pytest.approx(area)
    assert rows["AURC"]["best"] == pytest.approx(area)  # they are ordered by risk
    assert rows["AURC"]["difference"] == pytest.approx(area - 0.4)


def test_a_single_case_has_no_interval():
    for row in referral_rows("run", "idh", np.ones(1), np.ones(1)):
        assert row["low"] is None and row["value"] is not None


def study(name, folders, out):
    assert main(["study", name, *map(str, folders), "--out", str(out)]) == 0
    return json.loads((out / "study.json").read_text())["rows"]


@pytest.fixture(scope="module")
def metrics(evaluation):
    return json.loads((evaluation / "metrics.json").read_text())


def test_calibration_of_an_evaluation(evaluation, metrics, tmp_path, capsys):
    rows = study("calibration", [evaluation], tmp_path)
    shown = capsys.readouterr().out
    assert "temperature 1: the model carries none" in shown  # of the grade
    found = {(r["marker"], r["temperature"], r["measure"]): r for r in rows}
    assert ("grade", "after", "ECE") not in found
    fitted = metrics["markers"]["idh"]["calibration"]
    for when in ("before", "after"):
        row = found["IDH", when, "log loss"]
        assert row["value"] == fitted[when]["log_loss"]["value"]
        assert [row["low"], row["high"]] == fitted[when]["log_loss"]["interval"]
    change = fitted["after"]["brier"]["value"] - fitted["before"]["brier"]["value"]
    assert found["IDH", "after", "Brier score"]["difference"] == pytest.approx(change, abs=1e-6)


def test_uncertainty_of_an_evaluation(evaluation, metrics, tmp_path):
    rows = {(r["task"], r["measure"]): r for r in study("uncertainty", [evaluation], tmp_path)}
    for task, name in (("seg", "Dice"), ("idh", "IDH"), ("grade", "grade")):
        told, row = metrics["uncertainty"][task], rows[name, "AURC"]
        assert row["value"] == pytest.approx(told["aurc"]["value"])
        assert [row["low"], row["high"]] == pytest.approx(told["aurc"]["interval"])
        assert row["chance"] == pytest.approx(told["aurc_chance"])
        assert rows[name, "0% referred"]["value"] == pytest.approx(told["score"]["value"])


def test_several_evaluations_are_named_apart(evaluation, tmp_path):
    other = tmp_path / "other" / evaluation.name
    shutil.copytree(evaluation, other)
    rows = study("satellites", [evaluation, other], tmp_path / "out")
    names = {row["run"] for row in rows}
    assert names == {f"{evaluation.parent.name}/evaluation", "other/evaluation"}
    again = [row for row in rows if row["measure"] == "invented a case"]
    assert again[1]["difference"] == 0 and again[0]["difference"] is None


def test_folders_that_are_no_evaluation(evaluation, tmp_path, capsys):
    assert main(["study", "calibration", "--out", str(tmp_path / "o")]) == 2
    assert "name at least one folder of gliomoe evaluate" in capsys.readouterr().err
    assert main(["study", "uncertainty", str(tmp_path), "--out", str(tmp_path / "o")]) == 2
    assert "not readable as results of gliomoe evaluate" in capsys.readouterr().err
    cut = tmp_path / "cut"
    shutil.copytree(evaluation, cut)
    lines = (cut / "cases.csv").read_text().splitlines()
    (cut / "cases.csv").write_text("\n".join(lines[:-1]) + "\n")
    assert len(list(csv.DictReader((cut / "cases.csv").open()))) == 5
    assert main(["study", "satellites", str(cut), "--out", str(tmp_path / "o")]) == 2
    assert "5 cases, metrics.json has 6; evaluate again" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_dropout_is_drawn_where_there_is_some(folder, tmp_path, capsys):
    call = ["evaluate", str(folder / "run"), "--data", str(folder / "cases"), "--draws", "2"]
    assert main([*call, "--out", str(tmp_path)]) == 2
    assert "the model has no dropout layer" in capsys.readouterr().err
