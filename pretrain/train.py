"""A pretraining run from its configuration: start the processes, take up what is there, train."""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Any

import torch

from gliomoe.data_shards.errors import UsageError
from gliomoe.data_shards.format.dataset import fingerprint_of, join_infos, read_dataset
from gliomoe.data_shards.reading.reader import Reader, open_reader
from gliomoe.data_shards.storage.store import absolute_place, open_source
from gliomoe.models.encoders.encoder import Encoder
from gliomoe.models.model import Model
from gliomoe.models.registry import create_model
from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.engine.processes import PATIENCE, start_processes
from gliomoe.pretrain.faults.health import Health
from gliomoe.pretrain.faults.progress import Phase, Progress
from gliomoe.pretrain.faults.routers import Routers
from gliomoe.pretrain.faults.signals import StopFlag, deadly, stop_flag
from gliomoe.pretrain.faults.watch import Watch
from gliomoe.pretrain.objectives import create_objective
from gliomoe.pretrain.objectives.objective import Objective
from gliomoe.pretrain.samples.loading import Parts, Placement, load_parts
from gliomoe.pretrain.samples.views import StudyViews

logger = logging.getLogger(__name__)


def pretrain(config: PretrainConfig, leave: Callable[[int], int] = int) -> bool:
    """Pretrain, or continue the run in `run.out`.

    Args:
        config: The run.
        leave: Told the exit code if this process has to be ended without returning, since another
            is lost; the exit code of the process.

    Returns:
        True if the run is finished, False if a signal interrupted it and it can be continued.

    Raises:
        UsageError: If the configuration does not fit the processes, the data or the checkpoint.
        DataError: If the data are damaged or too many steps in a row are skipped.
        RankError: With several processes, of whatever made this one the first to fail.
        KeyboardInterrupt: If a signal came before the first step.
    """
    done = checkpoints.newest(config.run.out)
    if done and done.step >= config.run.steps:
        logger.info("%s: finished at step %d, nothing to do", config.run.out, done.step)
        return True
    with deadly():
        device, store = start_processes(config.engine)
    progress = Progress()
    with stop_flag() as stop, exact_arithmetic(device):
        if store is None:
            return _pretrain(config, device, stop, progress)
        with Watch(store, progress, limits(config), config.health.silence, leave):
            try:
                return _pretrain(config, device, stop, progress)
            finally:
                stop.defer()  # the others are told of an error, whatever signals it brings


def limits(config: PretrainConfig) -> dict[Phase, float]:
    """Phase of a process → seconds that it may last."""
    reading = config.data.timeout + config.health.silence  # the loader, if it can, tells more
    long = PATIENCE * config.engine.timeout
    return {
        "starting": long,
        "waiting for data": reading if config.data.timeout else math.inf,
        "computing": config.engine.timeout,
        "saving": long,
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
    config: PretrainConfig, device: torch.device, stop: StopFlag, progress: Progress
) -> bool:
    """The run inside its processes."""
    from gliomoe.pretrain.engine.engine import Engine, resolve_precision
    from gliomoe.pretrain.loop import train
    from gliomoe.pretrain.step import Training

    rank, world = distributed.world()
    placement = Placement(config.optim.batch, config.engine.accumulation, rank, world)
    precision = resolve_precision(config.engine.precision, device)
    described, reader = describe_data(config), open_data(config)
    torch.manual_seed(config.run.seed)
    model, objective = build(config)
    engine = Engine(objective, config, precision, device)
    about = {
        "zero_stage": config.engine.zero_stage,
        "accumulation": config.engine.accumulation,
        "world": world,
        "precision": precision,
        "model": model.config,
        "training": asdict(config.loss) | {"batch": config.optim.batch, "seed": config.run.seed},
        "data": described,
    }
    start, judged = _take_up(engine, config, about)
    patch_size = objective.encoder.patch_size
    samples = StudyViews(reader, config.views, config.augment, patch_size, config.run.seed)
    logger.info(
        "%s: %d studies, %s, step %d of %d, %s on %d x %s",
        config.run.out,
        described["studies"],
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
        return train(Training(config, engine, parts, start, about, progress, health, routers), stop)


def build(config: PretrainConfig) -> tuple[Model, Objective]:
    """The model and the objective that trains its encoder, with fresh weights.

    Raises:
        ModelError: If the model or one of its settings is unknown.
        UsageError: If the objective is unknown, or the views do not fit the patches.
    """
    model = create_model(config.model.name, (), **config.model.overrides)
    encoder = prepare_encoder(model.encoder, config)
    return model, create_objective(encoder, config)


def prepare_encoder(encoder: Encoder, config: PretrainConfig) -> Encoder:
    """The encoder, with the parts frozen that run only when all of an image is encoded.

    Raises:
        UsageError: If the views do not fit its patches, or lack sequences that it needs.
    """
    if encoder.sequences and config.views.hide:
        raise UsageError(
            f"{config.model.name} needs {', '.join(encoder.sequences)} in every view: give "
            "--views.hide False and studies that have them, or take a gliomoe or magpie model"
        )
    if config.views.size % encoder.stride:
        raise UsageError(
            f"views.size ({config.views.size}) must be a multiple of {encoder.stride}, "
            f"the stride of {config.model.name}"
        )
    for name in encoder.dense_only:
        encoder.get_submodule(name).requires_grad_(False)
    return encoder


def open_data(config: PretrainConfig) -> Reader:
    """The studies of a run by sample number; errors as of `open_reader`."""
    data = config.data
    return open_reader(
        data.train, data.order, config.run.seed, config.optim.batch, data.storage, data.allow_pipes
    )


def describe_data(config: PretrainConfig) -> dict[str, Any]:
    """What the run reads.

    Raises:
        UsageError: If there is no finished shard set, or the sets do not go together.
        DataError: If one is damaged or cannot be read.
    """
    data = config.data
    sources = [open_source(place, data.storage, data.allow_pipes) for place in data.train]
    info = join_infos(list(data.train), [read_dataset(source) for source in sources])
    return {
        "paths": [absolute_place(place) for place in data.train],
        "fingerprint": fingerprint_of(info),
        "studies": info["studies"],
        "order": {**asdict(data.order), "weights": list(data.order.weights)},
    }


def _take_up(
    engine: Any, config: PretrainConfig, about: dict[str, Any]
) -> tuple[int, dict[str, Any]]:
    """Load the newest checkpoint, if there is one; the steps that were done, and its manifest."""
    checkpoint = checkpoints.newest(config.run.out)
    if checkpoint is None:
        return 0, {}
    checkpoints.check_fit(checkpoint, about)
    engine.load(checkpoint.folder)
    logger.info("continues from %s", checkpoint.folder)
    return checkpoint.step, checkpoint.manifest
