"""Which checkpoints a run can take up: as they are, converted, or not at all."""

import logging
from typing import Any

from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.checkpoints.store import Checkpoint

logger = logging.getLogger(__name__)

_RIGID = {"accumulation": "engine.accumulation", "expert_parallel": "engine.expert_parallel"}
"""Entries of the manifest that must be as the run's: another accumulation contrasts other studies
with each other and balances experts over others, so that the loss is another function."""


def check_fit(checkpoint: Checkpoint, about: dict[str, Any]) -> None:
    """Refuse a checkpoint that this run cannot take up.

    Args:
        checkpoint: What was found.
        about: Entries of the manifest that this run will write.

    Raises:
        UsageError: If accumulation, expert groups or data differ, if ZeRO began or ended, or if
            the processes differ in number where the model or its experts depend on it.
    """
    written = checkpoint.manifest
    rigid = dict(_RIGID)
    shared = about["expert_parallel"] > 1  # each process has experts of its own: not converted
    if shared or not (written["zero_stage"] and about["zero_stage"]):
        rigid["zero_stage"] = "engine.zero_stage"
    if shared or about["batch_norm"]:
        rigid["world"] = "the number of processes"
    for key, name in rigid.items():
        if written[key] != about[key]:
            raise UsageError(
                f"{checkpoint.folder}: written with {name} {written[key]}, this run has "
                f"{about[key]}; continue it with {written[key]}"
            )
    if written["data"]["fingerprint"] != about["data"]["fingerprint"]:
        raise UsageError(
            f"{checkpoint.folder}: the shards changed since this run began; "
            "bring them back or start another run"
        )
    now, then = ({"precision": x["precision"], **x["versions"]} for x in (about, written))
    for name, value in now.items():
        if value != then[name]:
            logger.warning(
                "the run continues with %s %s after %s; the losses will differ slightly",
                name,
                value,
                then[name],
            )


def needs_conversion(checkpoint: Checkpoint, about: dict[str, Any]) -> bool:
    """Whether ZeRO's shares of the optimizer are cut otherwise than this run needs them."""
    written = checkpoint.manifest
    return bool(about["zero_stage"]) and any(
        written[key] != about[key] for key in ("zero_stage", "world")
    )
