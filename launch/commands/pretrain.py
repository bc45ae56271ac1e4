"""`gliomoe pretrain`: pretrain an encoder, or continue a run."""

import logging
import os

from gliomoe.launch.cli import INTERRUPTED
from gliomoe.launch.options import to_table
from gliomoe.launch.runs import claim
from gliomoe.pretrain.config import PretrainConfig as Options

PRESETS = "gliomoe.pretrain"
EXAMPLE = "gliomoe pretrain gliomoe_tiny --data.train shards --run.out runs/tiny"

_FREE = (
    "data.workers",
    "data.timeout",
    "data.storage.cache",
    "data.storage.cache_gb",
    "data.storage.memory_mb",
    "data.storage.retries",
    "data.storage.pause",
    "data.storage.timeout",
    "run.checkpoint_every",
    "run.keep",
    "run.keep_every",
    "health.bad_steps",
    "engine.timeout",
    "engine.recompute",
    "monitor.log_every",
    "monitor.pictures_every",
    "monitor.wandb",
    "monitor.mlflow",
)
"""What may differ when a run is continued: nothing that the weights depend on."""


def run(options: Options) -> int:
    """Claim the folder and pretrain."""
    import torch

    from gliomoe.pretrain.train import build, describe_data, open_data, pretrain

    with torch.device("meta"):
        build(options)  # what cannot be built is refused before the folder is taken
    if int(os.environ.get("RANK", "0")) == 0:
        data = describe_data(options)
        open_data(options)  # nor is it for weights or a batch that do not fit the data
        claim(options.run.out, "pretrain", to_table(options), _FREE, data=data)
    else:
        logging.getLogger().setLevel(logging.WARNING)
    return 0 if pretrain(options) else INTERRUPTED
