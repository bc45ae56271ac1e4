"""Uncertainty by Monte Carlo dropout (Gal and Ghahramani 2016)."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from gliomoe.models.errors import ModelError


@contextmanager
def mc_dropout(model: nn.Module) -> Iterator[None]:
    """Within it, dropout layers draw as in training, and nothing else does.

    Normalisation keeps using its running statistics and does not change them. Predictions of
    several passes then scatter as the model is unsure:

        with torch.no_grad(), mc_dropout(model.eval()):
            draws = [model(batch).markers["grade"].softmax(1) for _ in range(20)]

    Args:
        model: Put in evaluation mode before. Its dropout layers are afterwards as they were.

    Raises:
        ModelError: If the model has no dropout, so that every draw would be the same.
    """
    layers = [part for part in model.modules() if isinstance(part, _DropoutNd) and part.p > 0]
    if not layers:
        raise ModelError("mc_dropout: the model has no dropout layer with a rate above 0; set one")
    before = [layer.training for layer in layers]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer, mode in zip(layers, before, strict=True):
            layer.train(mode)
