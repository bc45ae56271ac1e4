"""Small batches of made-up studies, and a small model of every registered family."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch

from gliomoe.data_shards.batch import StudyBatch, StudySample, collate
from gliomoe.models import create_model, list_models
from gliomoe.models.model import Model

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
    }
}
"""Family → settings that make any of its models small."""

SMALLEST = {name.split("_")[0]: name for name in reversed(list_models())}
"""Family → its first model; the others differ in size alone, which `SMALL` overrides."""


@pytest.fixture
def make_batch() -> Callable[..., StudyBatch]:
    """A function from the sequences of each study to a batch of ball-shaped heads."""

    def make(
        sequences: Sequence[Sequence[int]] = ((0, 1, 2, 3), (0, 3)),
        sides: tuple[int, int, int] = (16, 12, 20),
        seed: int = 0,
        spacing: float = 3.0,
    ) -> StudyBatch:
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

    return make


def small_model(name: str, tasks: Sequence[str] = (), **overrides: Any) -> Model:
    """A small version of a registered model, seeded."""
    torch.manual_seed(0)
    return create_model(name, tasks, **{**SMALL[name.split("_")[0]], **overrides})


@pytest.fixture(params=SMALLEST.values())
def make_model(request: pytest.FixtureRequest) -> Callable[..., Model]:
    """A function that builds a small version of a model of each registered family."""
    return partial(small_model, request.param)


@pytest.fixture
def make_tiny() -> Callable[..., Model]:
    """A function that builds a small version of one model."""
    return partial(small_model, "gliomoe_tiny")
