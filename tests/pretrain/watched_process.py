"""One of several processes that only watch each other: FAULT.

Rank 1, or with `lose_store` rank 0, which has the store, does something at its third step.
"""

import logging
import math
import os
import signal
import sys
import time

import torch
import torch.distributed as dist

from gliomoe.pretrain.engine.processes import start_processes
from gliomoe.pretrain.faults.progress import Progress
from gliomoe.pretrain.faults.watch import Watch
from gliomoe.pretrain.sections import EngineConfig

SILENCE = 3
LIMITS = {"starting": 20, "waiting for data": math.inf, "computing": 3, "saving": 20}


def wait_long(progress):
    """Longer than a step may last, but not than a checkpoint or data may."""
    for phase in ("saving", "waiting for data"):
        progress.at(phase)
        time.sleep(LIMITS["computing"] + 2)
    progress.at("computing")


FAULTS = {
    "wait_long": (1, wait_long),
    "freeze": (1, lambda progress: os.kill(os.getpid(), signal.SIGSTOP)),
    "lose_store": (0, lambda progress: os.kill(os.getpid(), signal.SIGKILL)),
}


def main():
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    faulty, fault = FAULTS[sys.argv[1]]
    _, store = start_processes(EngineConfig(timeout=20))
    progress = Progress()
    with Watch(store, progress, LIMITS, SILENCE, int):
        for step in range(5):
            progress.step = step
            progress.at("computing")
            if step == 2 and dist.get_rank() == faulty:
                fault(progress)
            dist.all_reduce(torch.ones(1))


main()
