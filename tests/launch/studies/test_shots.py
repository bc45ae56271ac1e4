"""`gliomoe study shots` from the command line to the files it leaves."""

import json
import signal
import subprocess
import sys
import time

import pytest

from gliomoe.launch.cli import main
from gliomoe.launch.exit_codes import INTERRUPTED

ARMS = ["--arms", "scratch=scratch", "frozen=scratch:frozen", "--shots", "4"]


pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def study(balls):
    """A study of one seed that was terminated and continued, its call, and what was said first."""
    out = balls.folder / "study"
    call = ["study", "shots", *balls.options, *ARMS, "--out", str(out)]
    started = [sys.executable, "-m", "gliomoe", *call, "--seeds", "1", "--parallel", "2"]
    with subprocess.Popen(started, stderr=subprocess.PIPE, text=True) as process:
        while not list(out.glob("runs/*/run.json")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == INTERRUPTED, said
    assert main([*call, "--seeds", "1"]) == 0
    return out, lambda *more: main([*call, *more]), said


def content(out):
    return json.loads((out / "study.json").read_text())


def test_every_arm_is_measured_and_compared(study):
    out, _, _ = study
    rows = content(out)["rows"]
    assert {(row["arm"], row["shots"], row["test"], row["measure"]) for row in rows} == {
        (arm, 4, "A", measure)
        for arm in ("scratch", "frozen")
        for measure in ("Dice mean", "AUC IDH")
    }
    assert all(("difference" in row) == (row["arm"] == "frozen") for row in rows)
    metrics = json.loads((out / "evaluations/A/frozen_4_0/metrics.json").read_text())
    frozen = next(r for r in rows if r["arm"] == "frozen" and r["measure"] == "Dice mean")
    assert frozen["value"] == pytest.approx(metrics["mean_dice"]["mean"])
    splits = [json.loads(p.read_text()) for p in sorted(out.glob("runs/*/splits.json"))]
    assert len(splits) == 2
    assert splits[0] == splits[1] == json.loads((out / "splits/4_0.json").read_text())


def test_a_study_goes_on_with_more_seeds_and_what_is_missing(study, capsys):
    out, call, _ = study
    before = (out / "runs/scratch_4_0/summary.json").stat().st_mtime_ns
    one = (out / "evaluations/A/scratch_4_0/metrics.json").read_text()
    (out / "evaluations/A/scratch_4_0/metrics.json").unlink()
    assert call("--seeds", "2", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "4 runs, each measured on A; 1 done" in shown
    assert "scratch  4 shots 0 of 2" in shown
    assert call("--seeds", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out) == content(out)
    assert (out / "runs/scratch_4_0/summary.json").stat().st_mtime_ns == before
    again = json.loads((out / "evaluations/A/scratch_4_0/metrics.json").read_text())
    assert again["regions"] == json.loads(one)["regions"]
    rows = content(out)["rows"]
    assert {row["seeds"] for row in rows} == {2}
    assert call("--seeds", "2") == 0  # nothing left to do
    assert content(out)["rows"] == rows


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seeds", "1", "--shots", "6"], "holds another run, which differs in shots"),
        (["--arms", "scratch=scratch:frozen"], "holds another run, which differs in freeze"),
        (["--test", "A=elsewhere", "--test_labels"], "not elsewhere; give the cohort another name"),
        (["--baseline", "ours"], "--baseline ours: no such arm; arms: scratch, frozen"),
        (["--test_labels", "C=table"], "there is no cohort C"),
        (["--shots", "1"], "arm scratch, 1 shots: folds (2) must be at least 2, and shots (1) at"),
        (["--seeds", "0"], "seeds and parallel must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(study, capsys, more, message):
    out, call, _ = study
    before = content(out)
    assert call(*more) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert content(out) == before


def test_test_cases_that_are_trained_on_are_refused_before_any_training(balls, tmp_path, capsys):
    out = tmp_path / "study"
    same = ["--test", f"A={balls.train}", "--test_labels", f"A={balls.labels}"]
    assert main(["study", "shots", *balls.options, *ARMS, "--out", str(out), *same]) == 2
    assert "cohort A: 8 of 8 cases are among those of" in capsys.readouterr().err
    assert not out.exists()


def test_a_terminated_study_says_that_it_continues(study):
    _, _, said = study
    assert said.splitlines()[-1] == "gliomoe study shots: interrupted; the same command continues"
