"""The models by name: one line in `MODELS` registers one.

A builder takes the tasks and settings by keyword, and returns a `Model` whose `encoder.config` is
the dataclass of all settings in effect.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from torch import nn

from gliomoe.models.encoders import gliomoe, magpie
from gliomoe.models.errors import ModelError
from gliomoe.models.model import TASKS, Model, check_tasks
from gliomoe.models.moe.layer import MixtureOfExperts
from gliomoe.models.shallow import mend_shallow
from gliomoe.models.systems import attention_unet, mdl_ca, mgmt_net, mts_unet


@dataclass(frozen=True)
class Entry:
    """What the registry knows of a model."""

    family: str
    """Models of one family differ in settings alone."""
    build: Callable[..., Model]
    """`build(tasks, **settings)`."""
    paper: str
    """System and paper file, as the docstrings cite it."""
    tasks: tuple[str, ...] = TASKS
    """What it can be built for."""
    published: Mapping[str, float] = field(default_factory=dict)
    """The paper's own `parameters_total`, `parameters_active` and `flops`, where it gives them."""


OURS = "GlioMoE"
MAGPIE = "MAGPIE, 004_8b31f988bf23d61e.txt"

MODELS: dict[str, Entry] = {
    "gliomoe_tiny": Entry("gliomoe", partial(gliomoe.build, gliomoe.TINY), OURS),
    "gliomoe_small": Entry("gliomoe", partial(gliomoe.build, gliomoe.SMALL), OURS),
    "gliomoe_base": Entry("gliomoe", partial(gliomoe.build, gliomoe.BASE), OURS),
    "gliomoe_large": Entry("gliomoe", partial(gliomoe.build, gliomoe.LARGE), OURS),
    "magpie_mednext_s": Entry("magpie_mednext", partial(magpie.build, magpie.MEDNEXT_S), MAGPIE),
    "magpie_mednext_m": Entry("magpie_mednext", partial(magpie.build, magpie.MEDNEXT_M), MAGPIE),
    "magpie_mednext_l": Entry(
        "magpie_mednext",
        partial(magpie.build, magpie.MEDNEXT_L),
        MAGPIE,
        published={"parameters_total": 120e6, "parameters_active": 62e6, "flops": 275e9},
    ),
    "magpie_unet_b": Entry(
        "magpie_unet",
        partial(magpie.build, magpie.UNET_B),
        MAGPIE,
        published={"parameters_total": 22e6},
    ),
    "magpie_unet_xl": Entry(
        "magpie_unet",
        partial(magpie.build, magpie.UNET_XL),
        MAGPIE,
        published={"parameters_total": 90e6},
    ),
    "mgmt_net": Entry(
        "mgmt_net",
        partial(mgmt_net.build, mgmt_net.PRESET),
        "MGMT-Net, 000_987802eb35c2af6d.txt",
        ("seg", *mgmt_net.MARKER_TASKS),
    ),
    "attention_unet": Entry(
        "attention_unet",
        partial(attention_unet.build, attention_unet.PRESET),
        "Joint attention-guided CNN, 003_0ef44555efc35fbc.txt",
        ("seg", *attention_unet.GRADE_TASKS),
    ),
    "mts_unet": Entry(
        "mts_unet",
        partial(mts_unet.build, mts_unet.MTSUNetConfig()),
        "MTS-UNET, 002_94b5e1c8af326309.txt",
        mts_unet.TASKS,
        {"parameters_total": 124e6},
    ),
    "mdl_ca": Entry(
        "mdl_ca",
        partial(mdl_ca.build, mdl_ca.MDLCAConfig()),
        "MDL-CA, 001_f9902db458654b34.txt",
        mdl_ca.TASKS,
    ),
}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models, in the order of the registry, that match a shell pattern."""
    return [name for name in MODELS if fnmatchcase(name, pattern)]


def entry(name: str) -> Entry:
    """What the registry knows of a model; `ModelError` with the nearest name if nothing."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=3)
        hint = f"perhaps {' or '.join(near)}; " if near else ""
        raise ModelError(f"unknown model {name!r}; {hint}known: {', '.join(MODELS)}")
    return MODELS[name]


def create_model(name: str, tasks: Sequence[str] = (), **overrides: Any) -> Model:
    """A model with fresh weights, drawn from torch's global generator.

    Args:
        name: As `list_models` gives it.
        tasks: Of the model's own; none gives an encoder without heads.
        **overrides: Settings that differ from the preset.

    Raises:
        ModelError: If the name, a task or a setting is unknown, or settings exclude each other.
    """
    known = entry(name)
    model = known.build(check_tasks(tasks, name, known.tasks), **overrides)
    mend_shallow(model)
    settings = asdict(model.encoder.config)
    model.config = {"name": name, "overrides": settings, "tasks": list(model.tasks)}
    return model


def parameter_counts(model: nn.Module) -> tuple[int, int]:
    """Parameters in all, and those that act on one token: experts not chosen do not count."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return total, total - sum(
        module.inactive_parameters()
        for module in model.modules()
        if isinstance(module, MixtureOfExperts)
    )
