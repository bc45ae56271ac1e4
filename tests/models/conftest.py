"""Small batches of made-up studies, and a small model of every registered family."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import pytest
import torch

from gliomoe.data_shards.batch import StudyBatch, StudySample, collate
from gliomoe.models import create_model, list_models
from gliomoe.models.model import Model
from gliomoe.models.registry import MODELS

MAGPIE = {
    "patch_size": 4,
    "channels": (4, 12, 24),
    "blocks": (1, 1, 1),
    "expansion": (2, 2, 2),
    "decoder_blocks": (1, 1),
    "scales": 2,
    "msda_width": 16,
    "heads": 2,
    "points": 2,
    "depth": 2,
    "experts": 4,
    "expert_hidden": 16,
}

SMALL: dict[str, dict[str, Any]] = {
    "gliomoe": {
        "width": 24,
        "depth": 2,
        "heads": 2,
        "hidden": 32,
        "experts": 4,
        "expert_hidden": 16,
        "stem_hidden": 16,
        "patch_size": 4,
        "detail_channels": (4, 8),
    },
    "magpie_mednext": MAGPIE,
    "magpie_unet": MAGPIE,
    "mgmt_net": {
        "channels": (8, 8, 12, 16),
        "blocks": 1,
        "swin_width": 4,
        "swin_heads": (1, 1, 2, 2),
        "window": 3,
        "pooling_hidden": 8,
        "marker_hidden": 8,
    },
    "attention_unet": {"channels": (8, 16, 24), "grade_hidden": 16},
    "mts_unet": {
        # Of the sizes whose step takes half a second, the one that learns in the fewest steps.
        "feature_size": 8,
        "heads": (1, 2, 2, 4),
        "window": 2,
        "tafe_stages": 4,
        "tafe_width": 32,
        "cmd_channels": 2,
        "dropout": 0.0,
    },
    "mdl_ca": {
        "layers": (1, 2, 1, 1),
        "growth": 4,
        "stem_channels": 8,
        "width": 16,
        "node_width": 8,
        "graph_heads": 2,
        "attention_hidden": 8,
        "dense": (32, 16),
        "block_dropout": 0.0,
        "graph_dropout": 0.0,
        "dropout": 0.0,
    },
}
"""Family → settings that make any of its models small."""

SMALLEST = {MODELS[name].family: name for name in reversed(list_models())}
"""Family → its first model; the others differ in size alone, which `SMALL` overrides."""

FOUR_AND_MORE = ((3, 0, 1, 8, 2), (0, 1, 2, 3))
"""Sequences of two studies that every model can take, whatever it needs by name."""


def ball_batch(
    sequences: Sequence[Sequence[int]] = ((0, 1, 2, 3), (0, 3)),
    sides: tuple[int, int, int] = (16, 12, 20),
    seed: int = 0,
    spacing: float = 3.0,
) -> StudyBatch:
    """Ball-shaped heads of noise.

    Args:
        sequences: Of each study.
        sides: Voxels.
        seed: Of the noise.
        spacing: mm.
    """
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in sides), indexing="ij")
    head = torch.stack(axes).square().sum(0) < 1
    samples = [
        StudySample(
            key=f"s{number}",
            voxels=(0.1 + torch.rand(len(present), *sides, generator=generator)) * head,
            sequence=torch.tensor(present),
            spacing=torch.full((3,), spacing),
        )
        for number, present in enumerate(sequences)
    ]
    return collate(samples)


def small_model(name: str, tasks: Sequence[str] = (), **overrides: Any) -> Model:
    """A small version of a registered model, seeded."""
    torch.manual_seed(0)
    return create_model(name, tasks, **{**SMALL[MODELS[name].family], **overrides})


@dataclass(frozen=True)
class Case:
    """A registered family as the property tests see it."""

    name: str

    @property
    def tasks(self) -> tuple[str, ...]:
        """All that the model can be built for."""
        return MODELS[self.name].tasks

    @cached_property
    def bare(self) -> Model:
        """The small model without heads."""
        return small_model(self.name)

    def model(self, tasks: Sequence[str] | None = None, **overrides: Any) -> Model:
        """The small model with all its heads, or those of some tasks."""
        return small_model(self.name, self.tasks if tasks is None else tasks, **overrides)

    def batch(self, sequences: Sequence[Sequence[int]] = FOUR_AND_MORE, **how: Any) -> StudyBatch:
        """A batch with all that the model needs, genes included."""
        return self.with_genes(ball_batch(sequences, **how))

    def with_genes(self, batch: StudyBatch) -> StudyBatch:
        """The batch with a made-up gene table where the model asks for one."""
        if not self.bare.genes:
            return batch
        draw = torch.Generator().manual_seed(3)
        genes = torch.randn(batch.studies, len(self.bare.genes), 3, generator=draw)
        return replace(batch, genes=genes.round())


@pytest.fixture(params=SMALLEST.values(), ids=SMALLEST.keys())
def case(request: pytest.FixtureRequest) -> Case:
    """Every registered family in turn."""
    return Case(request.param)


NAMED_SEQUENCES = [name for name in SMALLEST.values() if Case(name).bare.encoder.sequences]
"""The first model of each family that needs sequences by name."""


@pytest.fixture(params=NAMED_SEQUENCES, ids=lambda name: MODELS[name].family)
def named_case(request: pytest.FixtureRequest) -> Case:
    """Every family that needs sequences by name."""
    return Case(request.param)


@pytest.fixture
def make_batch() -> Callable[..., StudyBatch]:
    """`ball_batch`."""
    return ball_batch


ANY_SEQUENCES = [name for name in SMALLEST.values() if name not in NAMED_SEQUENCES]
"""The first model of each family that takes any number of any sequences."""


@pytest.fixture(params=ANY_SEQUENCES, ids=lambda name: MODELS[name].family)
def make_model(request: pytest.FixtureRequest) -> Callable[..., Model]:
    """A function that builds a small version of a model of each channel-agnostic family."""
    return partial(small_model, request.param)


@pytest.fixture
def make_tiny() -> Callable[..., Model]:
    """A function that builds a small version of the flagship."""
    return partial(small_model, "gliomoe_tiny")
