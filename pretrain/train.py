"""A pretraining run from its configuration: start the processes, take up what is there, train."""

import logging
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.indexed import ShardSet
from gliomoe.models.registry import create_model
from gliomoe.pretrain import checkpoints, distributed
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.loading import Placement, load_parts
from gliomoe.pretrain.objectives import create_objective
from gliomoe.pretrain.signals import StopFlag, stop_flag
from gliomoe.pretrain.views import StudyViews

logger = logging.getLogger(__name__)


def pretrain(config: PretrainConfig) -> bool:
    """Pretrain, or continue the run in `run.out`.

    Returns:
        True if the run is finished, False if a signal interrupted it and it can be continued.

    Raises:
        UsageError: If the configuration does not fit the processes, the data or the checkpoint.
        DataError: If the data are damaged or losses stay not finite.
    """
    done = checkpoints.newest(config.run.out)
    if done and done.step >= config.run.steps:
        logger.info("%s: finished at step %d, nothing to do", config.run.out, done.step)
        return True
    from gliomoe.pretrain import engine  # here, since it starts DeepSpeed

    with stop_flag() as stop:
        device = engine.start_processes(config.engine)
        try:
            return _pretrain(config, device, stop)
        finally:
            engine.stop_processes()
