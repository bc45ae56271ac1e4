"""The models by name.

A builder takes settings and returns the encoder and the settings in effect; one line in
`ENCODERS` registers it.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn

from gliomoe.models.encoders import gliomoe
from gliomoe.models.encoders.encoder import Encoder
from gliomoe.models.errors import ModelError
from gliomoe.models.model import Model
from gliomoe.models.moe.layer import MixtureOfExperts

ENCODERS: dict[str, Callable[..., Encoder]] = {
    "gliomoe_tiny": partial(gliomoe.build, gliomoe.TINY),
    "gliomoe_small": partial(gliomoe.build, gliomoe.SMALL),
    "gliomoe_base": partial(gliomoe.build, gliomoe.BASE),
    "gliomoe_large": partial(gliomoe.build, gliomoe.LARGE),
}
"""Name → builder of an encoder, which takes settings by keyword and keeps them as `.config`."""


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models, in the order of the registry, that match a shell pattern."""
    return [name for name in ENCODERS if fnmatchcase(name, pattern)]


def create_model(name: str, tasks: Sequence[str] = (), **overrides: Any) -> Model:
    """A model with fresh weights, drawn from torch's global generator.

    Args:
        name: As `list_models` gives it.
        tasks: Of `gliomoe.models.model.TASKS`; none gives an encoder without heads.
        **overrides: Settings of the encoder that differ from the preset.

    Raises:
        ModelError: If the name, a task or a setting is unknown, or settings exclude each other.
    """
    if name not in ENCODERS:
        near = difflib.get_close_matches(name, ENCODERS, n=1)
        hint = f"perhaps {near[0]}; " if near else ""
        raise ModelError(f"unknown model {name!r}; {hint}known: {', '.join(ENCODERS)}")
    encoder = ENCODERS[name](**overrides)
    return Model(encoder, tasks, {"name": name, "overrides": asdict(encoder.config)})


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Parameters in all, and those that act on one token: experts not chosen do not count."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return total, total - sum(
        module.inactive_parameters()
        for module in model.modules()
        if isinstance(module, MixtureOfExperts)
    )
