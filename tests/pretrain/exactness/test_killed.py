"""Runs of several processes, killed at random steps and continued: equal to the bit."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gliomoe.pretrain.checkpoints import store as checkpoints

pytestmark = pytest.mark.slow

KILLS = 5


def assert_same(trace, final, one, two):
    assert trace(one) == trace(two)
    assert [line["step"] for line in trace(one)] == list(range(12))
    first, second = final(one), final(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def steps(trace, run):
    return len(trace(run)) if (run / "metrics.jsonl").is_file() else 0


def partial(run):
    return list(run.glob("checkpoints/.step_*.partial"))


def kill_while_saving(ranks, run):
    """Kill a run in the middle of writing a checkpoint; False if that was just finished."""
    ranks.until(lambda: partial(run))
    ranks.kill()
    return bool(partial(run))


def descendants(pid):
    """Numbers of the processes below one."""
    below = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in below.read_text().split()] if below.is_file() else []
    return children + [deeper for child in children for deeper in descendants(child)]


@contextlib.contextmanager
def launched(argv, log):
    """A command in two processes under torchrun; nothing of it stays."""
    command = [
        sys.executable, "-m", "gliomoe.launch.torchrun", "--standalone", "--nproc-per-node", "2",
        "--signals-to-handle", "SIGTERM,SIGINT,SIGUSR1", "--shutdown-timeout", "30",
        "--module", "gliomoe.launch.worker", *argv,
    ]  # fmt: skip
    with log.open("a") as said, subprocess.Popen(command, stdout=said, stderr=said) as agent:
        try:
            yield agent
        finally:
            for pid in (*descendants(agent.pid), agent.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def wait_for(agent, log, happened):
    """Wait for something that happens while torchrun runs."""
    end = time.monotonic() + 120
    while not happened():
        assert agent.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.01)


def test_torchrun_killed_and_told_to_stop(start, arguments, shards, tmp_path, trace, final):
    """SIGKILL to agent and workers, then SIGTERM and SIGUSR1 to the agent, then to the end."""
    calm, broken, log = tmp_path / "calm", tmp_path / "broken", tmp_path / "log"
    assert start(2, shards, calm).codes() == [0, 0]
    with launched(arguments(shards, broken), log) as agent:
        wait_for(agent, log, lambda: steps(trace, broken) >= 3)
    for number in (signal.SIGTERM, signal.SIGUSR1):
        done = steps(trace, broken)
        with launched(arguments(shards, broken), log) as agent:
            wait_for(agent, log, lambda at=done: steps(trace, broken) > at)
            agent.send_signal(number)
            assert agent.wait(30) == 75, log.read_text()
        assert done < checkpoints.newest(broken).step == steps(trace, broken) < 12
    with launched(arguments(shards, broken), log) as agent:
        assert agent.wait(120) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    assert_same(trace, final, calm, broken)


@pytest.mark.parametrize(
    ("world", "stage", "accumulation"), [(1, 1, 1), (2, 0, 2), (2, 1, 2), (2, 2, 1)]
)
def test_five_kills_change_nothing(
    start, shards, tmp_path, trace, final, world, stage, accumulation
):
    options = ("--engine.zero_stage", stage, "--engine.accumulation", accumulation)
    calm, broken = tmp_path / "calm", tmp_path / "broken"
    ranks = start(world, shards, calm, *options)
    assert ranks.codes() == [0] * world, ranks.said()

    draw = random.Random(f"{world} {stage}")
    cut = 0
    for step in sorted(draw.sample(range(1, 12), KILLS - 1)):
        ranks = start(world, shards, broken, *options)
        ranks.until(lambda at=step: steps(trace, broken) >= at)
        ranks.kill()
        cut += bool(partial(broken))
    while not cut:  # one more, where no kill has met a checkpoint half-written
        cut += kill_while_saving(start(world, shards, broken, *options), broken)
    ranks = start(world, shards, broken, *options)
    assert ranks.codes() == [0] * world, ranks.said()
    assert_same(trace, final, calm, broken)
