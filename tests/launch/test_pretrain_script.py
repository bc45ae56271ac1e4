"""`launch/pretrain.sh`: torchrun starts the processes, the exit code is that of the command."""

import signal
import socket

import psutil
import pytest

from gliomoe.launch.nodes import SCRIPT
from gliomoe.launch.torchrun import network_towards


@pytest.mark.slow
def test_signals_end_in_a_checkpoint_and_75(options, start, latest, tmp_path):
    run = tmp_path / "run"
    command = (SCRIPT, *options(run, "--run.checkpoint_every", "1", "--run.steps", "20"))
    process = start(*command)
    start.until(lambda: latest(run), process)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):  # the later ones add nothing
        process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 75, said
    assert "the same command continues" in said
    assert "Traceback" not in said
    stopped_at = latest(run)

    # Before its processes have met: they just end.
    process = start(*command)
    start.until(lambda: "torchrun" in " ".join(psutil.Process(process.pid).cmdline()), process)
    process.send_signal(signal.SIGUSR1)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 75, said
    assert "Traceback" not in said
    assert latest(run) == stopped_at

    process = start(*command)
    start.until(lambda: latest(run) != stopped_at, process)
    process.kill()
    assert start.all_end(10)

    process = start(*command)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    assert "continues from" in said


def test_a_wrong_call_is_2_and_told_once(options, start, tmp_path):
    wrong = options(tmp_path / "run", "--data.train", "none")
    process = start(SCRIPT, *wrong, GLIOMOE_PROCESSES="2")
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 2, said
    assert said.count("error: ") == 1 and "none: not a finished shard set" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


def test_help_names_the_exit_codes_and_the_ways(start):
    process = start(SCRIPT, "--help")
    shown = process.communicate(timeout=30)[0]
    assert process.returncode == 0
    for word in ("75", "sbatch", "GLIOMOE_HOSTFILE", "GLIOMOE_NODES", "k8s/pretrain.yaml"):
        assert word in shown


def test_the_network_that_leads_to_an_address_is_found():
    assert network_towards(socket.AF_INET, ("127.0.0.1", 9)) == "lo"
