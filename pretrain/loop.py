"""The training loop."""

import logging

from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.faults.health import Health
from gliomoe.pretrain.faults.signals import StopFlag
from gliomoe.pretrain.monitoring.monitor import Monitor
from gliomoe.pretrain.samples.views import Views
from gliomoe.pretrain.step import Training, train_step

logger = logging.getLogger(__name__)


def train(training: Training, stop: StopFlag) -> bool:
    """Train until the last step or until asked to stop.

    Returns:
        True if the run is finished, False if it was interrupted and can be continued.

    Raises:
        DataError: If too many steps in a row had a loss that is not finite.
    """
    config, engine = training.config, training.engine
    run, (rank, world) = config.run, distributed.world()
    saved, health = training.start, Health(config.health)
    with Monitor(config, training.start, engine.device, world, rank == 0) as monitor:
        for step in range(training.start, run.steps):
            stopping = distributed.any_rank(bool(stop), engine.device)
            if saved < step and (stopping or step % run.checkpoint_every == 0):
                with monitor.at_work("checkpoint"):
                    save(training, step)
                saved = step
            if stopping:
                logger.info("stopped at step %d; the same command continues", step)
                return False
            ask(training, monitor, step)
            report, views, keys = train_step(training, step)
            monitor.show(report)
            health.judge(report, keys)
            show(training, monitor, views, step + 1)
        with monitor.at_work("checkpoint"):
            save(training, run.steps)
        ask(training, monitor, run.steps)
    return True


def save(training: Training, step: int) -> None:
    """Write a checkpoint."""
    checkpoints.save(training.engine, training.config.run, step, training.about)


def ask(training: Training, monitor: Monitor, step: int) -> None:
    """Ask the probe, if it is time; every rank calls it."""
    if training.probe and training.probe.due(step):
        with monitor.at_work("probe"):
            figures = training.probe.run()
        monitor.show_probe(figures, step)


def show(training: Training, monitor: Monitor, views: Views, step: int) -> None:
    """Weights of the sequences and, every so often, pictures."""
    from gliomoe.pretrain.monitoring.pictures import make_pictures  # matplotlib takes a second

    settings, objective = training.config.monitor, training.engine.module
    if step % settings.log_every == 0:
        monitor.show_fusion(objective.encoder, step)
    # Experts on other ranks are reached by all ranks together.
    needed = monitor.active or training.config.engine.expert_parallel > 1
    if settings.pictures_every and step % settings.pictures_every == 0 and needed:
        with monitor.at_work("pictures"):
            pictures = make_pictures(objective, views, training.about["precision"])
            monitor.show_pictures(pictures, step)
