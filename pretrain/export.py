"""A run's newest checkpoint as a folder to publish: the encoder, its card, what it has seen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from gliomoe.data_shards.errors import DataError, UsageError
from gliomoe.data_shards.reading.indexed import ShardSet
from gliomoe.data_shards.reading.reader import OrderConfig, open_reader
from gliomoe.models.checkpoint import save_checkpoint
from gliomoe.models.registry import create_model
from gliomoe.pretrain.card import write_card
from gliomoe.pretrain.checkpoints.store import WEIGHTS, Checkpoint, newest
from gliomoe.pretrain.monitoring.journal import TRACE, mean_losses, read_lines

_ENCODER = "encoder."
_AVERAGED = "averaged.module."


def export(run: Path, out: Path) -> Checkpoint:
    """Write the encoder of a run as a checkpoint folder, with `optim.ema` its running mean.

    Args:
        run: Folder of a pretraining run, finished or not.
        out: Folder to make; the same export in it already is left as it is.

    Returns:
        The checkpoint that was exported.

    Raises:
        UsageError: If `run` holds no checkpoint, or the shards are not there.
        DataError: If the shards are not those of the run.
        CheckpointError: If `out` holds something else.
    """
    checkpoint = newest(run)
    if checkpoint is None:
        raise UsageError(f"{run}: no checkpoint of a pretraining run; gliomoe pretrain writes one")
    about = checkpoint.manifest
    shards = ShardSet.open(*about["data"]["paths"])
    if shards.fingerprint != about["data"]["fingerprint"]:
        raise DataError(f"{run}: the shards {about['data']['paths']} changed since the run")
    info = shards.info
    training = _summary(run, checkpoint)
    config = about["model"]
    model = create_model(config["name"], **config["overrides"])
    weights = load_file(checkpoint.folder / WEIGHTS)
    chosen = _AVERAGED if training["ema"] else _ENCODER
    model.encoder.load_state_dict(
        {
            name.removeprefix(chosen): value
            for name, value in weights.items()
            if name.startswith(chosen)
        }
    )
    save_checkpoint(
        out,
        model,
        training=training,
        preprocessing=info["preprocess"],
        sequences=tuple(info["sequences"]),
        card=write_card(config["name"], training, info),
        fingerprints=_seen(shards, about, training["studies_read"]),
    )
    return checkpoint


def _summary(run: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """What the checkpoint says about how it was trained."""
    about = checkpoint.manifest
    read, ema = checkpoint.step * about["training"]["batch"], about["training"]["ema"]
    return {
        **about["training"],
        "steps": checkpoint.step,
        "studies_read": read,
        "studies": min(read, about["data"]["studies"]),
        "data_fingerprint": about["data"]["fingerprint"],
        "precision": about["precision"],
        "weights": f"running mean over the steps, decay {ema}" if ema else "of the last step",
        "losses": mean_losses(read_lines(run / TRACE), checkpoint.step),
    }


def _seen(shards: ShardSet, about: Mapping[str, Any], read: int) -> bytes:
    """The studies that were read, as a checkpoint lists them."""
    training, data = about["training"], about["data"]
    order = OrderConfig(**{**data["order"], "weights": tuple(data["order"]["weights"])})
    reader = open_reader(data["paths"], order, training["seed"], training["batch"])
    return shards.seen({reader.number(n) for n in range(read)}).to_bytes()
