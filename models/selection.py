"""Fixed sequences by name, for systems whose input is a stack of channels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gliomoe.models.errors import ModelError
from gliomoe.models.stem import SEQUENCES
from gliomoe.models.tissue import Batch

FOUR = ("t1", "t1ce", "t2", "flair")
"""The sequences of BraTS, the input of the published systems."""


def select_sequences(batch: Batch, names: Sequence[str], model: str) -> Tensor:
    """The volumes of some sequences as channels; others are left aside.

    Args:
        batch: Studies with any sequences in any order; of two of one sequence the first counts.
        names: Canonical sequences, in the order of the channels.
        model: Who asks, for the message.

    Returns:
        [B, S, D, H, W].

    Raises:
        ModelError: If a study lacks a sequence.
    """
    numbers = [SEQUENCES.index(name) for name in names]
    chosen: list[dict[int, int]] = [{} for _ in range(len(batch.spacing))]
    pairs = zip(batch.study.tolist(), batch.sequence.tolist(), strict=True)
    for volume, (study, sequence) in enumerate(pairs):
        chosen[study].setdefault(sequence, volume)
    for study, volumes in enumerate(chosen):
        missing = [n for n, number in zip(names, numbers, strict=True) if number not in volumes]
        if missing:
            key = batch.keys[study] if batch.keys else f"number {study}"
            raise ModelError(
                f"{model} needs {', '.join(names)}; study {key} lacks {', '.join(missing)}: "
                "leave it out, or take a gliomoe or magpie model, which run on any sequences"
            )
    index = torch.tensor([[volumes[n] for n in numbers] for volumes in chosen])
    return batch.voxels[index.to(batch.voxels.device), 0]
