"""From a checkpoint that was found to an engine that goes on from it."""

import logging
from typing import Any

from gliomoe.pretrain.checkpoints import store as checkpoints
from gliomoe.pretrain.checkpoints.files import check_room, expected_bytes
from gliomoe.pretrain.checkpoints.fit import check_fit, needs_conversion
from gliomoe.pretrain.checkpoints.store import Checkpoint
from gliomoe.pretrain.engine import distributed
from gliomoe.pretrain.objectives.objective import Objective
from gliomoe.pretrain.sections import RunConfig

logger = logging.getLogger(__name__)


def check_start(
    found: Checkpoint | None, about: dict[str, Any], module: Objective, run: RunConfig
) -> bool:
    """Whether the checkpoint has to be converted; every rank calls it.

    Args:
        found: The checkpoint to go on from, if there is one.
        about: Entries of the manifest that this run will write.
        module: What will be saved.
        run: Where.

    Raises:
        UsageError: If the checkpoint does not fit the run.
        DataError: If the disk has no room for the next one.
    """
    folder = run.out / "checkpoints"
    if found is None:
        need = expected_bytes(module, None)
        distributed.first_decides(lambda: check_room(folder, need))
        return False
    check_fit(found, about)
    if not needs_conversion(found, about):
        return False
    need = 2 * expected_bytes(module, found.manifest)  # it passes through parts of the same size
    distributed.first_decides(lambda: check_room(folder, need))
    return True


def take_up(engine: Any, found: Checkpoint | None, converted: bool) -> int:
    """Load a checkpoint, if there is one; every rank calls it.

    Args:
        engine: What takes it up.
        found: The checkpoint.
        converted: As `check_start` says.

    Returns:
        The steps that were done.
    """
    from gliomoe.pretrain.engine import universal

    if found is None:
        return 0
    target = found.folder.with_name(f".{found.folder.name}.universal") if converted else None
    if target:
        source = found.folder / engine.TAG
        distributed.first_decides(lambda: universal.convert(source, target))
    engine.load(found.folder, target)
    distributed.barrier()
    distributed.first_decides(lambda: checkpoints.tidy(found))
    logger.info("continues from %s", found.folder)
    return found.step
