"""The training loop."""

import logging
from dataclasses import replace

from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.faults.damaged import Damaged
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
        DataError: If too many steps in a row were skipped.
    """
    config, engine = training.config, training.engine
    run, (rank, world) = config.run, distributed.world()
    saved, damaged = training.start, Damaged(run.out, training.start, rank == 0)
    stop.defer()
    with Monitor(config, training.start, engine.device, world, rank == 0) as monitor:
        for step in range(training.start, run.steps):
            training.progress.step = step
            if saved < step and step % run.checkpoint_every == 0:
                saved = save(training, monitor, step)
            if asked_to_stop(training, stop):
                if saved < step:
                    save(training, monitor, step)
                logger.info("stopped at step %d; the same command continues", step)
                return False
            ask(training, monitor, step)
            report, views, keys = train_step(training, step)
            damaged.add(step, report.left_out)
            if report.norm is not None:
                report = replace(report, routers=training.routers.follow(report.expert_use))
            monitor.show(report)
            training.health.judge(report, keys)
            show(training, monitor, views, step + 1)
        save(training, monitor, run.steps)
        ask(training, monitor, run.steps)
    damaged.sum_up()
    return True


def asked_to_stop(training: Training, stop: StopFlag) -> bool:
    """Wait for the data of the next step; whether a signal came to any rank, before or meanwhile.

    No rank has begun the step then, so that all can write a checkpoint.
    """
    try:
        with stop.waiting():
            training.parts.wait()
    except KeyboardInterrupt:
        logger.info("asked to stop by %s", stop.name)
    return distributed.any_rank(bool(stop), training.engine.device)


def save(training: Training, monitor: Monitor, step: int) -> int:
    """Write a checkpoint; the step."""
    training.progress.at("saving")
    judged = {"health": training.health.state(), "routers": training.routers.state()}
    with monitor.at_work("checkpoint"):
        checkpoints.save(training.engine, training.config.run, step, training.about | judged)
    training.progress.at("computing")
    return step


def ask(training: Training, monitor: Monitor, step: int) -> None:
    """Ask the probe, if it is time; every rank calls it."""
    if training.probe and training.probe.due(step):
        training.progress.at("showing")
        with monitor.at_work("probe"):
            figures = training.probe.run()
        monitor.show_probe(figures, step)
        training.progress.at("computing")


def show(training: Training, monitor: Monitor, views: Views, step: int) -> None:
    """Weights of the sequences and, every so often, pictures."""
    settings, objective = training.config.monitor, training.engine.module
    if step % settings.log_every == 0:
        monitor.show_fusion(objective.encoder, step)
    # Experts on other ranks are reached by all ranks together.
    needed = monitor.active or training.config.engine.expert_parallel > 1
    if settings.pictures_every and step % settings.pictures_every == 0 and needed:
        from gliomoe.pretrain.monitoring.pictures import make_pictures  # matplotlib takes a second

        training.progress.at("showing")
        with monitor.at_work("pictures"):
            pictures = make_pictures(objective, views, training.about["precision"])
            monitor.show_pictures(pictures, step)
        training.progress.at("computing")
