"""A process of a run in which something goes wrong: FAULT RANK STEP, then a worker's arguments.

    python -m gliomoe.launch.torchrun --standalone --nproc-per-node 2 tests/pretrain/faulty_worker.py \
        hang 1 5 pretrain smoke --data.train SHARDS --run.out RUN
"""  # noqa: E501

import os
import runpy
import signal
import sys
import time

from gliomoe.pretrain import loop, step
from gliomoe.pretrain.samples.views import StudyViews

FAULT, RANK, STEP = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ASLEEP = 3600
STUDIES_PER_STEP = 4  # of the preset `smoke`


def at_step(fault):
    """Have it happen at the beginning of the step, on the rank."""
    whole = loop.train_step

    def train_step(training, number):
        if number == STEP and int(os.environ["RANK"]) == RANK:
            fault()
        return whole(training, number)

    loop.train_step = train_step


def raise_fault():
    raise RuntimeError("the coolant leaks")


def hang_in_reader():
    whole = StudyViews.__getitem__

    def read(samples, number):
        if number == STEP * STUDIES_PER_STEP + RANK * STUDIES_PER_STEP // 2:
            time.sleep(ASLEEP)
        return whole(samples, number)

    StudyViews.__getitem__ = read


def spoil_two_steps():
    whole = step.make_views
    seen = [0]

    def make_views(*args):
        views = whole(*args)
        if STEP <= seen[0] < STEP + 2 and int(os.environ["RANK"]) == RANK:
            views.complete.voxels.mul_(float("nan"))
        seen[0] += 1
        return views

    step.make_views = make_views


FAULTS = {
    "kill": lambda: at_step(lambda: os.kill(os.getpid(), signal.SIGKILL)),
    "raise": lambda: at_step(raise_fault),
    "hang": lambda: at_step(lambda: time.sleep(ASLEEP)),
    "hang_reader": hang_in_reader,
    "nan": spoil_two_steps,
}
FAULTS[FAULT]()
sys.argv[1:] = sys.argv[4:]
runpy.run_module("gliomoe.launch.worker", run_name="__main__", alter_sys=True)
