"""A pretraining run from its configuration: start the processes, take up what is there, train."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from gliomoe.models.model import Model
from gliomoe.pretrain.build import build, describe_data, open_data
from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.checkpoints.resume import check_start, take_up
from gliomoe.pretrain.checkpoints.store import Checkpoint
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.engine.processes import PATIENCE, start_processes
from gliomoe.pretrain.faults.health import Health
from gliomoe.pretrain.faults.progress import Phase, Progress
from gliomoe.pretrain.faults.routers import Routers
from gliomoe.pretrain.faults.signals import StopFlag, deadly, stop_flag
from gliomoe.pretrain.faults.watch import Watch
from gliomoe.pretrain.monitoring.probe import Probe, ProbeSet
from gliomoe.pretrain.monitoring.sinks import require_packages
from gliomoe.pretrain.objectives.objective import Objective
from gliomoe.pretrain.planning.preflight.check import preflight
from gliomoe.pretrain.planning.work import Work
from gliomoe.pretrain.samples.loading import Parts, Placement, load_parts
from gliomoe.pretrain.samples.views import StudyViews

logger = logging.getLogger(__name__)


def pretrain(
    config: PretrainConfig,
    leave: Callable[[int], int] = int,
    *,
    check_first: bool = False,
    work: Work | None = None,
) -> bool:
    """Pretrain, or continue the run in `run.out`.

    Args:
        config: The run.
        leave: Told the exit code if this process has to be ended without returning, since another
            is lost; the exit code of the process.
        check_first: Check machines, network, folder and data before the first step.
        work: From `count_work`, for the estimates of these checks.

    Returns:
        True if the run is finished, False if a signal interrupted it and it can be continued.

    Raises:
        UsageError: If the configuration does not fit the processes, the data or the checkpoint, or
            asks for a package that is not installed.
        DataError: If the data are damaged or too many steps in a row are skipped.
        RankError: With several processes, if they do not find each other, and of whatever made
            this one the first to fail.
        KeyboardInterrupt: If a signal came before the first step.
    """
    require_packages(config.monitor)
    with deadly():
        device, store = start_processes(config.engine)
    progress = Progress()
    with stop_flag() as stop, exact_arithmetic(device), ExitStack() as ending:
        if store is not None:
            watch = Watch(store, progress, limits(config), config.health.silence, leave)
            ending.enter_context(watch)
            # The others are told of an error, whatever signals it brings.
            ending.callback(stop.defer)
        found = distributed.first_decides(lambda: checkpoints.newest(config.run.out))
        if found and found.step >= config.run.steps:
            logger.info("%s: finished at step %d, nothing to do", config.run.out, found.step)
            return True
        data = describe_data(config)
        if check_first:
            preflight(config, device, data, work)
        return _pretrain(config, device, data, found, stop, progress)


def limits(config: PretrainConfig) -> dict[Phase, float]:
    """Phase of a process → seconds that it may last."""
    reading = config.data.timeout + config.health.silence  # the loader, if it can, tells more
    long = PATIENCE * config.engine.timeout
    return {
        "starting": long,
        "waiting for data": reading if config.data.timeout else math.inf,
        "computing": config.engine.timeout,
        "saving": long,
        "showing": long,
    }


@contextmanager
def exact_arithmetic(device: torch.device) -> Iterator[None]:
    """Make the same sums in the same order every time, on CPU.

    With several threads the gradient of indexing is otherwise added up in the order in which the
    threads happen to arrive, and a continued run would differ from an undisturbed one.
    """
    before = torch.are_deterministic_algorithms_enabled()
    # A module with a property, which its type does not show.
    settings: Any = torch.utils.deterministic
    filling = settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    settings.fill_uninitialized_memory = False  # costs time, changes no sum
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = filling


def _pretrain(
    config: PretrainConfig,
    device: torch.device,
    data: dict[str, Any],
    found: Checkpoint | None,
    stop: StopFlag,
    progress: Progress,
) -> bool:
    """The run inside its processes."""
    from gliomoe.pretrain.engine.engine import Engine, resolve_precision
    from gliomoe.pretrain.loop import train
    from gliomoe.pretrain.step import Training

    judged = found.manifest if found else {}
    rank, world = distributed.world()
    placement = Placement(config.optim.batch, config.engine.accumulation, rank, world)
    precision = resolve_precision(config.engine.precision, device)
    reader = open_data(config)
    labelled = ProbeSet.open(config) if config.probe.data else None
    torch.manual_seed(config.run.seed)
    model, objective = build(config)
    about = _about(config, precision, model, objective, data)
    converted = check_start(found, about, objective, config.run)
    engine = Engine(objective, config, precision, device, converted)
    start = take_up(engine, found, converted)
    probe = Probe(config, labelled, objective.published, precision) if labelled else None
    patch_size = objective.encoder.patch_size
    samples = StudyViews(reader, config.views, config.augment, patch_size, config.run.seed)
    logger.info(
        "%s: %d studies, %s, step %d of %d, %s on %d x %s",
        config.run.out,
        data["studies"],
        config.model.name,
        start,
        config.run.steps,
        precision,
        world,
        device.type,
    )
    pin = device.type == "cuda"
    read = load_parts(
        samples,
        placement,
        start,
        config.run.steps,
        config.data.workers,
        pin,
        config.data.timeout,
    )
    health = Health(config.health, judged.get("health"))
    routers = Routers(config.health, judged.get("routers"))
    with closing(Parts(read, progress)) as parts:
        training = Training(config, engine, parts, start, about, progress, health, routers, probe)
        return train(training, stop)


def _about(
    config: PretrainConfig,
    precision: str,
    model: Model,
    objective: Objective,
    data: dict[str, Any],
) -> dict[str, Any]:
    """What the manifests of a run's checkpoints say of it."""
    return {
        "zero_stage": config.engine.zero_stage,
        "accumulation": config.engine.accumulation,
        "expert_parallel": config.engine.expert_parallel,
        "world": distributed.world()[1],
        "precision": precision,
        "batch_norm": bool(distributed.batch_norms(objective)),
        "versions": {name: version(name) for name in ("torch", "deepspeed")},
        "model": model.config,
        "training": asdict(config.loss)
        | {"batch": config.optim.batch, "ema": config.optim.ema, "seed": config.run.seed},
        "data": data,
    }
