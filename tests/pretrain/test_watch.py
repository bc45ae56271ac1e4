"""The watch of rank 0 over signs of others that were not left at the same moment."""

import json
import time
from contextlib import contextmanager

import pytest
import torch.distributed as dist

from gliomoe.pretrain.faults import watch
from gliomoe.pretrain.faults.progress import Progress

LIMITS = {"computing": 3}
STEP = 3


def leave_sign(store, rank, beats, step, seconds):
    """A sign of a rank that waits for the others in a collective."""
    sign = {"beats": beats, "host": "node", "step": step, "phase": "computing"}
    sign |= {"seconds": seconds, "place": "loop.py:1 in train", "waits": True}
    store.set(f"{rank}", json.dumps(sign))


def wait_for_looks(store, number):
    """Wait until rank 0 has looked so often at the others, which it does after each sign."""

    def beats():
        return json.loads(store.get("0"))["beats"]

    last, deadline = beats() + number, time.monotonic() + 30
    while beats() <= last:
        assert time.monotonic() < deadline, "rank 0 leaves no signs"
        time.sleep(0.1)


@contextmanager
def first_of_three(monkeypatch, ended):
    """The store of a run whose rank 0 watches, itself in a collective."""
    store, progress = dist.HashStore(), Progress()
    progress.step = STEP
    progress.at("computing")

    def leave(code):
        ended.append(code)
        raise SystemExit  # ends the thread that found the cause, not the tests

    monkeypatch.setattr(watch, "main_thread", lambda: ("loop.py:1 in train", True))
    with monkeypatch.context() as patch:
        patch.setattr(watch.distributed, "world", lambda: (0, 3))
        begun = watch.Watch(store, progress, LIMITS, 60, leave)
    with begun:
        yield store, progress


def test_a_sign_older_than_those_of_others_is_no_hang(monkeypatch):
    ended = []
    with first_of_three(monkeypatch, ended) as (store, progress):
        leave_sign(store, 1, 20, STEP, 0)
        leave_sign(store, 2, 20, STEP - 1, 10)  # from before the collective was over
        wait_for_looks(store, 2)
        leave_sign(store, 2, 21, STEP, 1)
        progress.at("computing")
        wait_for_looks(store, 2)
        assert not store.check(["cause"])
    assert not ended


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_rank_that_stays_behind_hangs(monkeypatch, caplog):
    ended = []
    with first_of_three(monkeypatch, ended) as (store, _):
        for beats in range(20, 40):
            leave_sign(store, 1, beats, STEP, 0)
            leave_sign(store, 2, beats, STEP - 1, 10 + beats)
            if store.check(["cause"]):
                break
            time.sleep(0.5)
        else:
            pytest.fail("no cause was left")
        assert store.get("cause").decode().count("rank 2 of 3 on node hangs in loop.py:1") == 1
        deadline = time.monotonic() + 30
        while not ended and time.monotonic() < deadline:
            time.sleep(0.1)
    assert ended == [1]
    assert "rank 2 of 3 on node hangs" in caplog.text
