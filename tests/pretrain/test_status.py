"""`gliomoe pretrain status`: a run under way, left, finished, and folders that hold none."""

import json
import os
import re
import socket
import subprocess
import sys
import time

import pytest
import torch

from gliomoe.launch.cli import main
from gliomoe.launch.options import to_table
from gliomoe.launch.runs import claim
from gliomoe.pretrain.monitoring.monitor import Monitor, StepReport
from gliomoe.pretrain.monitoring.status import read_status, unused_experts

CPU = torch.device("cpu")


def report(step, loss, **more):
    return StepReport(
        step=step,
        losses={"loss": loss, "reconstruction": loss / 2},
        lr=1e-3,
        studies=4,
        seconds=0.5,
        waited=0.1,
        **{"norm": 1.0, **more},
    )


@pytest.fixture
def run(config):
    """A run that this process is at, seven of ten steps done."""
    out = config.run.out
    claim(out, "pretrain", to_table(config))
    with Monitor(config, 0, CPU, 2, True) as monitor:
        monitor.show_probe({"tumour_dice": 0.25}, 0)
        for step in range(7):
            monitor.show(report(step, 3.0 - 0.1 * step, left_out=("x",) * (step == 3)))
        monitor.show(report(7, 9.0, norm=None))
        monitor.show_probe({"tumour_dice": 0.75}, 7)
    return out


def rewrite(path, **changed):
    """Change every line of a journal."""
    lines = [{**json.loads(line), **changed} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def finish_checkpoint(run, step):
    folder = run / "checkpoints"
    folder.mkdir()
    (folder / "latest").write_text(f"step_{step}")


def test_a_run_under_way(run, capsys):
    (run / "metrics.jsonl").open("a").write('{"step": 8, "lo')  # being written
    finish_checkpoint(run, 6)
    assert main(["pretrain", "status", str(run)]) == 0
    said = capsys.readouterr().out
    for part in (
        f"running on {socket.gethostname()}, 2 x cpu, started once",
        "8 of 10 (80.0 %)",
        "8 studies/s, data wait 20.0 %",
        "step 6, 0:00:0",
        "1 steps skipped; 1 damaged studies stood in for",
        "0.75   random weights 0.25",
        "process hours",
    ):
        assert part in said, part
    assert re.search(r"^loss +2\.7 ", said, re.M)  # the skipped step's 9 does not count


def test_json_has_everything(run, capsys):
    assert main(["pretrain", "status", str(run), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status == read_status(run).to_json() | {
        "sign_s": status["sign_s"],
        "probe": [{"steps": 0, "tumour_dice": 0.25}, {"steps": 7, "tumour_dice": 0.75}],
    }
    assert (status["state"], status["step"], status["steps"]) == ("running", 8, 10)
    assert status["pid"] == os.getpid()
    assert status["checkpoint"] is None


def test_a_process_that_is_gone_is_told_from_one_that_is_silent(run):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    rewrite(run / "starts.jsonl", pid=gone.pid)
    assert read_status(run).state == "stopped"
    rewrite(run / "starts.jsonl", host="elsewhere")
    assert read_status(run).state == "running"
    long_ago = time.time() - 3600
    os.utime(run / "metrics.jsonl", (long_ago, long_ago))
    assert read_status(run).state == "silent"
    finish_checkpoint(run, 10)
    assert read_status(run).state == "finished"


def test_losses_are_compared_with_those_an_hour_before(config, run):
    old = json.loads((run / "timing.jsonl").read_text().splitlines()[0])
    lines = [{**old, "time": old["time"] - 4000}, {**old, "steps": 8}]
    (run / "timing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    status = read_status(run)
    assert status.when == "an hour before"
    assert status.before["loss"] == pytest.approx(2.8)  # steps 0 to 4
    assert status.losses["loss"] == pytest.approx(2.7)  # steps 0 to 6


def test_a_run_that_has_only_begun(config, capsys):
    claim(config.run.out, "pretrain", to_table(config))
    assert main(["pretrain", "status", str(config.run.out)]) == 0
    said = capsys.readouterr().out
    assert "starting" in said and "0 of 10" in said and "none yet" in said


def test_unused_experts_are_those_below_the_limit_all_the_time():
    lines = [{"steps": step, "use": [[0.005, 0.6, 0.395]]} for step in range(0, 300, 10)]
    assert unused_experts(lines, 0.01, 200) == [(0, 0)]
    assert unused_experts(lines[:15], 0.01, 200) == []  # not long enough
    lines[-5] = {"steps": 250, "use": [[0.02, 0.6, 0.38]]}
    assert unused_experts(lines, 0.01, 200) == []
    assert unused_experts([], 0.01, 200) == []


@pytest.mark.parametrize("content", [None, '{"command": "finetune"}'])
def test_a_folder_without_a_run_is_refused(tmp_path, capsys, content):
    if content:
        (tmp_path / "run.json").write_text(content)
    assert main(["pretrain", "status", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip()
    assert "not the folder of a pretraining run" in said
    assert len(said.splitlines()) == 1


def test_watch_ends_with_the_run(run, capsys):
    finish_checkpoint(run, 10)
    assert main(["pretrain", "status", str(run), "--watch"]) == 0
    assert "finished" in capsys.readouterr().out
