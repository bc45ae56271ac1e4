"""What a study writes and prints."""

import csv
import json

import pytest

from gliomoe.finetune.studies.output import WIDTH, as_text, correct, write_study
from gliomoe.finetune.studies.plots import lines, points


def row(run, shots, measure, value, **more):
    return {"run": run, "shots": shots, "measure": measure, "cases": 9, "value": value,
            "low": None if value is None else value - 0.1,
            "high": None if value is None else value + 0.1, **more}  # fmt: skip


@pytest.fixture
def rows():
    return [
        row("ours", 5, "Dice WT", 0.5, difference=0.25, difference_low=0.1, difference_high=0.4,
            p_value=0.01),
        row("ours", 20, "Dice WT", 0.75),
        row("scratch", 5, "Dice WT", 0.25, p_value=None),
        row("scratch", 5, "AUC IDH", None, p_value=0.04, difference=-0.125),
    ]  # fmt: skip


def test_a_study_is_written_whole(tmp_path, rows):
    by = ("run", "shots")
    out = tmp_path / "study"
    for _ in range(2):  # a second time over the first
        content = write_study(out, "shots", by, rows, {"seed": 0}, lines(rows, "shots", "run", "n"),
                              {"cpus": 2})  # fmt: skip
    assert {path.name for path in out.iterdir()} == {"study.json", "table.csv", "plot.png"}
    assert json.loads((out / "study.json").read_text()) == content
    assert (content["study"], content["by"], content["settings"]) == ("shots", [*by], {"seed": 0})
    table = list(csv.DictReader((out / "table.csv").open()))
    assert [line["value"] for line in table] == ["0.5", "0.75", "0.25", ""]
    assert [line["p_holm"] for line in table] == ["0.02", "", "", "0.04"]
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_one_run_is_drawn_to_the_byte(tmp_path, rows):
    for out in ("a", "b"):
        write_study(tmp_path / out, "s", ["run"], rows, {}, points(rows, "run"), {})
    assert (tmp_path / "a/plot.png").read_bytes() == (tmp_path / "b/plot.png").read_bytes()


def test_the_printed_table(rows):
    correct(rows)
    text = as_text({"by": ["run", "shots"], "rows": rows}).splitlines()
    assert text == [
        "run      shots  Dice WT",
        "-------  -----  ------------------",
        "ours     5      0.500 [0.40, 0.60]",
        "ours     20     0.750 [0.65, 0.85]",
        "scratch  5      0.250 [0.15, 0.35]",
        "",
        "run (difference)  shots  Dice WT                   AUC IDH",
        "----------------  -----  ------------------------  -------",
        "ours              5      +0.250 [+0.100, +0.400]*  –",
        "scratch           5      –                         -0.125*",
        "",
        "* p (Holm) < 0.05",
    ]


def test_a_wide_table_is_cut_into_blocks():
    rows = [row("ours", 5, f"measure {n:02d}", n / 20) for n in range(10)]
    text = as_text({"by": ["run", "shots"], "rows": rows})
    assert max(map(len, text.splitlines())) <= WIDTH
    assert len(text.split("\n\n")) == 3
    assert all(row["measure"] in text for row in rows)
