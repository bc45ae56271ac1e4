"""Cohorts side by side, and the same scans corrupted by degrees."""

import json
import shutil

import pytest

from gliomoe.launch.cli import main


def command(folder, out, *more):
    return ["study", "shift", str(folder / "run"), "--data", str(folder / "cases"),
            "--labels", str(folder / "labels.tsv"), "--out", str(out), *more]  # fmt: skip


def test_severity_by_severity(folder, evaluation, tmp_path, capsys):
    assert main(command(folder, tmp_path, "--corruptions", "noise")) == 0
    text = capsys.readouterr().out
    assert "noise" in text and "Dice mean" in text and "Dice WT" not in text
    content = json.loads((tmp_path / "study.json").read_text())
    rows = {(r["corruption"], r["severity"], r["measure"]): r for r in content["rows"]}
    assert {key[:2] for key in rows} == {("none", 0), *(("noise", s) for s in range(1, 6))}
    metrics = json.loads((evaluation / "metrics.json").read_text())
    clean = rows["none", 0, "Dice mean"]
    assert clean["value"] == pytest.approx(metrics["mean_dice"]["mean"], abs=1e-6)
    worst = rows["noise", 5, "Dice mean"]
    assert worst["difference"] == pytest.approx(worst["value"] - clean["value"])
    assert worst["value"] != rows["noise", 1, "Dice mean"]["value"]


def test_cohorts_alone(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder / "cases", other)
    call = ["study", "shift", str(folder / "run"), "--corruptions", "none", "--out",
            str(tmp_path / "out"), "--data", str(folder / "cases"), str(other),
            "--labels", *[str(folder / "labels.tsv")] * 2]  # fmt: skip
    assert main(call) == 0
    rows = json.loads((tmp_path / "out/study.json").read_text())["rows"]
    assert {(row["corruption"], row["severity"]) for row in rows} == {("none", 0)}
    first, second = ([r["value"] for r in rows if r["cohort"] == c] for c in names(rows))
    assert first == second and len(first) == 6


def names(rows):
    found = list(dict.fromkeys(row["cohort"] for row in rows))
    assert len(found) == 2 and found[1] == "other"
    return found


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--corruptions", "snow"], "--corruptions snow: not one of bias_field, noise"),
        (["--data", *["{folder}/cases"] * 2, "--labels"], "cases: is given twice"),
        (["--data"], "name at least one run, and one cohort with --data"),
        (["--labels", "a.tsv", "b.tsv"], "--labels: 2 for 1 cohorts; one for each"),
    ],
)
def test_wrong_calls_are_one_line(folder, tmp_path, capsys, more, message):
    more = [word.format(folder=folder) for word in more]
    assert main(command(folder, tmp_path / "out", *more)) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
