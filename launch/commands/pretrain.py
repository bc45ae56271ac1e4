"""`gliomoe pretrain`: pretrain an encoder, or continue a run."""

import json
import logging
import os
from dataclasses import dataclass, fields

from gliomoe.data_shards.errors import UsageError
from gliomoe.launch.exit_codes import INTERRUPTED
from gliomoe.launch.options import to_table
from gliomoe.launch.runs import RECORD, claim, release
from gliomoe.models.errors import ModelError
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.planning.work import Work

logger = logging.getLogger(__name__)

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
    "health.collapse_share",
    "health.collapse_steps",
    "health.silence",
    "engine.timeout",
    "engine.recompute",
    "engine.zero_stage",
    "monitor.log_every",
    "monitor.pictures_every",
    "monitor.wandb",
    "monitor.mlflow",
    "probe.data",
    "probe.every",
    "probe.folds",
    "probe.studies",
)
"""What may differ when a run is continued: nothing that the weights depend on."""


@dataclass(frozen=True)
class Options(PretrainConfig):
    """Options of `gliomoe pretrain`: the run's configuration, and what concerns one start of it."""

    dry_run: bool = False
    """Print the plan and the configuration, write nothing."""
    json: bool = False
    """Print the plan as JSON."""
    preflight: bool = True
    """Check machines, network, folder and data before the first step."""

    def configuration(self) -> PretrainConfig:
        """The run's part of it."""
        return PretrainConfig(
            **{field.name: getattr(self, field.name) for field in fields(PretrainConfig)}
        )


def run(options: Options) -> int:
    """Claim the folder and pretrain, or print the plan."""
    import torch

    from gliomoe.launch.worker import leave
    from gliomoe.pretrain.build import build, describe_data, open_data
    from gliomoe.pretrain.monitoring.probe import ProbeSet
    from gliomoe.pretrain.monitoring.sinks import require_packages
    from gliomoe.pretrain.train import pretrain

    config = options.configuration()
    first = int(os.environ.get("RANK", "0")) == 0
    if options.json and not options.dry_run:
        raise UsageError("--json is for --dry-run; gliomoe pretrain status RUN --json shows a run")
    require_packages(config.monitor)
    with torch.device("meta"):
        build(config)  # what cannot be built is refused before the folder is taken
    config.micro_batch(int(os.environ.get("WORLD_SIZE", "1")))  # or cannot be shared out
    if first:
        data = describe_data(config)
        open_data(config)  # or does not fit the data, as weights and a batch may not
        if config.probe.data:
            ProbeSet.open(config)
        if options.dry_run:
            return show_plan(config, data["studies"], options.json)
        continued = claim(config.run.out, "pretrain", to_table(config), _FREE, data=data)
    elif options.dry_run:
        return 0
    else:
        logging.getLogger().setLevel(logging.WARNING)
    work = estimate(config) if options.preflight and first else None
    try:
        done = pretrain(config, leave, check_first=options.preflight, work=work)
    except BaseException:  # of several processes each ends in its own way
        if first and not continued and os.listdir(config.run.out) == [RECORD]:
            release(config.run.out)  # not begun: another configuration may have the folder
        raise
    return 0 if done else INTERRUPTED


def estimate(config: PretrainConfig) -> Work | None:
    """The counted work of a step; None, with a warning, if it cannot be counted."""
    from gliomoe.pretrain.planning.machines import find_machines
    from gliomoe.pretrain.planning.work import count_work

    try:
        return count_work(config, find_machines(config).precision)
    except ModelError as error:
        logger.warning("memory and time are not estimated: %s", error)
        return None


def show_plan(config: PretrainConfig, data_studies: int, as_json: bool) -> int:
    """Print what the run will be on the processes that were started."""
    import tomli_w

    from gliomoe.pretrain.planning.machines import find_machines
    from gliomoe.pretrain.planning.plan import plan_here, render
    from gliomoe.pretrain.planning.work import count_work

    work = count_work(config, find_machines(config).precision)
    plan = plan_here(config, work, data_studies)
    if as_json:
        print(json.dumps({**plan.to_json(), "config": to_table(config)}, indent=2))
    else:
        print(f"{render(plan)}\n\n{tomli_w.dumps(to_table(config))}", end="")
    return 0
