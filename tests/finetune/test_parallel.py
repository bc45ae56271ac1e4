"""Folds side by side: the same weights, one error for all, interruptions that continue exactly."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gliomoe.data_shards.errors import DataError
from gliomoe.finetune import parallel
from gliomoe.finetune.config import FinetuneConfig, TrainConfig
from gliomoe.finetune.parallel import fold_device, run_side_by_side
from gliomoe.launch.cli import main


def config_of(folder: Path, side_by_side: int = 2) -> FinetuneConfig:
    train = TrainConfig(device="cpu", parallel=side_by_side)
    return FinetuneConfig(data=folder, out=folder, folds=3, train=train)


def fake_fold(config: FinetuneConfig, fault: str, number: int, row: int) -> None:
    """Fold 0 ends as `fault` says as soon as fold 1 is under way; fold 1 waits to be stopped."""
    if number == 2:
        (config.out / f"fold_2_in_row_{row}").touch()
        return
    (config.out / f"started_{number}").touch()
    if number == 0:
        while not (config.out / "started_1").exists():
            time.sleep(0.01)
        if fault == "error":
            raise DataError("fold 0, step 3: the loss is nan")
        os.kill(os.getpid(), {"killed": signal.SIGKILL, "stopped": signal.SIGTERM}[fault])
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        if number == 1:
            (config.out / "stopped_1").touch()
        raise


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("error", DataError, "fold 0, step 3: the loss is nan"),
        ("killed", DataError, "fold 0: its process ended with code -9"),
        ("stopped", KeyboardInterrupt, None),
    ],
)
def test_a_fold_that_fails_ends_the_others(tmp_path, fault, error, message):
    with pytest.raises(error, match=message):
        run_side_by_side(fake_fold, config_of(tmp_path), fault, [0, 1, 2])
    assert (tmp_path / "stopped_1").exists()
    assert not list(tmp_path.glob("fold_2*"))  # never begun


def quick_fold(config: FinetuneConfig, log: str, number: int, row: int) -> None:
    (config.out / f"{log}_{number}").write_text(f"{row} {torch.get_num_threads()}")


@pytest.mark.slow
def test_more_folds_than_processes(tmp_path):
    run_side_by_side(quick_fold, config_of(tmp_path), "fold", [0, 1, 2])
    rows = [(tmp_path / f"fold_{n}").read_text().split() for n in range(3)]
    assert [row for row, _ in rows[:2]] == ["0", "1"] and rows[2][0] in "01"


def test_gpus_are_dealt_out_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [fold_device("auto", row) for row in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert fold_device("cuda:1", 0) == "cuda:1" and fold_device("cpu", 1) == "cpu"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert fold_device("auto", 1) == "auto"


@pytest.fixture
def command(tmp_path, ball_shards, write_labels, tiny_preset) -> Callable[[str], list[str]]:
    """Arguments that fine-tune two folds into a folder."""
    labels = write_labels(tmp_path / "labels.tsv", range(8))
    data = ["--data", str(ball_shards(range(8))), "--labels", str(labels), "--tasks", "seg", "idh"]
    train = {"epochs": 40, "steps_per_epoch": 1, "validate_every": 20}
    flags = [part for name, n in train.items() for part in (f"--train.{name}", str(n))]
    return lambda out: ["finetune", str(tiny_preset), *data, *flags, "--out", str(out)]


@pytest.mark.slow
def test_an_interrupted_run_side_by_side_ends_as_one_after_the_other(command, tmp_path):
    call = [sys.executable, "-m", "gliomoe", *command(tmp_path / "halves"), "--train.parallel", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(call, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        while not list(tmp_path.glob("halves/training/fold_*/state.pt")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said = process.communicate()[1].strip().splitlines()
    finally:
        process.kill()
    assert process.returncode == 75
    assert said[-1] == "gliomoe finetune: interrupted; the same command continues"
    assert not (tmp_path / "halves/summary.json").exists()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert main([*command(tmp_path / "halves"), "--train.parallel", "2"]) == 0
        assert main(command(tmp_path / "whole")) == 0
    finally:
        torch.set_num_threads(before)
    for fold in ("fold_0", "fold_1"):
        whole, halves = (tmp_path / run / fold / "model.safetensors" for run in ("whole", "halves"))
        assert whole.read_bytes() == halves.read_bytes()


def test_processes_that_do_not_end_are_killed(monkeypatch):
    class Deaf:
        """Ignores what it is asked, until it is killed."""

        alive, asked = True, False

        def is_alive(self) -> bool:
            return self.alive

        def terminate(self) -> None:
            self.asked = True

        def join(self, timeout: float | None = None) -> None:
            assert self.asked

        def kill(self) -> None:
            self.alive = False

    deaf = Deaf()
    parallel._end([deaf])
    assert not deaf.alive
