"""What happens to one process of a run ends all of them alike: a signal, a full disk."""

import os
import signal
import time

import pytest

from gliomoe.pretrain.checkpoints import store as checkpoints

pytestmark = pytest.mark.slow

GRACE = 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=["term", "usr1"])
@pytest.mark.parametrize("told", [(1,), (0, 1)], ids=["second", "both"])
def test_all_ranks_save_and_end_with_75(start, shards, tmp_path, trace, number, told):
    run = tmp_path / "run"
    more = ("--run.checkpoint_every", 100, "--run.steps", 1000)
    ranks = start(2, shards, run, *more)
    ranks.until(lambda: (run / "metrics.jsonl").is_file() and len(trace(run)) >= 2)
    for rank in told:
        os.kill(ranks.pids[rank], number)
    begun = time.monotonic()
    assert ranks.codes() == [75, 75], ranks.said()
    assert time.monotonic() - begun < GRACE
    saved = checkpoints.newest(run)
    assert saved.step == len(trace(run)) >= 2
    assert saved.manifest["world"] == 2
    assert "Traceback" not in ranks.said()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_disk_that_is_full_for_one_rank_stops_all(start, shards, tmp_path, trace, rank):
    run = tmp_path / "run"
    ranks = start(2, shards, run, "--engine.zero_stage", 1, full=rank)
    assert ranks.codes() == [1, 1], ranks.said()
    assert ranks.said().count(f"step_2: process {rank} could not write it") == 1
    assert "No space left on device" in ranks.said()
    assert "Traceback" not in ranks.said()
    assert not list((run / "checkpoints").iterdir())
