"""Runs of several configurations, one after the other, by every process that torchrun starts.

    python -m torch.distributed.run --nproc-per-node 2 ranked_runs.py RUNS

RUNS is a pickled list of (configuration, step at which it ends abruptly or None).
"""

import os
import pickle
import sys
from pathlib import Path

from gliomoe.pretrain import loop
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.train import pretrain

whole = loop.train_step


def run(config: PretrainConfig, stop: int | None) -> None:
    def train_step(training, step):
        if step == stop:
            raise KeyboardInterrupt
        return whole(training, step)

    loop.train_step = train_step
    try:
        assert pretrain(config)
    except KeyboardInterrupt:
        assert stop is not None


if __name__ == "__main__":
    for config, stop in pickle.loads(Path(sys.argv[1]).read_bytes()):
        if os.environ["RANK"] == "0":
            config.run.out.mkdir(parents=True, exist_ok=True)
        run(config, stop)
