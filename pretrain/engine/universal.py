"""Checkpoints for other numbers of processes or stages of ZeRO: DeepSpeed's universal ones.

Notable: what DeepSpeed reads from a universal checkpoint is what its optimizer trains. Buffers, as
the routers' biases, and frozen weights are left as they were initialised, hence `load_untrained`.
"""

import argparse
import io
import logging
import shutil
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import nn

from gliomoe.data_shards.errors import DataError

logger = logging.getLogger(__name__)


def convert(source: Path, target: Path) -> None:
    """Convert a checkpoint of ZeRO 1 or 2; `target` is there whole or not at all.

    Args:
        source: DeepSpeed's folder of a checkpoint.
        target: Folder to make, in place of an older one.

    Raises:
        DataError: If it cannot be read or written.
    """
    from deepspeed.checkpoint import ds_to_universal

    logger.info("%s: converted to this number of processes", source.parent)
    partial = target.with_name(f"{target.name}.partial")
    for leftover in (partial, target):
        shutil.rmtree(leftover, ignore_errors=True)
    options = argparse.Namespace(
        input_folder=str(source),
        output_folder=str(partial / source.name),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            ds_to_universal.main(options)
        partial.rename(target)
    except (OSError, RuntimeError) as error:  # torch turns a full disk into the latter
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(
            f"{source.parent}: cannot be converted to this number of processes ({error}); "
            "free space or mend the disk, the same command continues"
        ) from error


def load_untrained(module: nn.Module, states: Path) -> None:
    """Load what the optimizer does not train: buffers and frozen weights.

    Args:
        module: Its trained weights stay as they are.
        states: DeepSpeed's file of model states.
    """
    saved = torch.load(states, map_location="cpu", weights_only=False)["module"]
    trained = {name for name, weight in module.named_parameters() if weight.requires_grad}
    rest = {name: value for name, value in saved.items() if name not in trained}
    missing, unexpected = module.load_state_dict(rest, strict=False)
    if unexpected or set(missing) - trained:
        raise RuntimeError(f"{states}: does not fit this model")
