"""`launch/pretrain.sh`: torchrun starts the processes, the exit code is that of the command."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "launch/pretrain.sh"


def start(*args):
    return subprocess.Popen(
        [str(part) for part in (SCRIPT, *args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_signal_ends_in_a_checkpoint_and_75(shards, tmp_path):
    out = tmp_path / "run"
    command = ("smoke", "--data.train", shards, "--run.out", out, "--run.checkpoint-every", "1")
    process = start(*command)
    while process.poll() is None and not (out / "checkpoints/latest").is_file():
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 75, said
    assert "the same command continues" in said
    assert "Traceback" not in said

    process = start(*command)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert "continues from" in said


def test_a_wrong_call_is_2(tmp_path):
    process = start("smoke", "--data.train", tmp_path / "nothing", "--run.out", tmp_path / "run")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 2, said
    assert f"{tmp_path}/nothing" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_help_names_the_exit_codes():
    process = start("--help")
    shown = process.communicate(timeout=30)[0]
    assert process.returncode == 0
    assert "75" in shown
