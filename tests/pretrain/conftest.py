"""Tiny shard sets and configurations."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.data_shards.format.dataset import seal
from gliomoe.data_shards.format.record import encode_study
from gliomoe.data_shards.format.writer import write_shards
from gliomoe.data_shards.study import Study
from gliomoe.pretrain import loop
from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.sections import (
    DataConfig,
    ModelConfig,
    MonitorConfig,
    OptimConfig,
    RunConfig,
    ViewConfig,
)

SEQUENCES = ("t1", "t1ce", "t2", "flair")


def make_study(number: int, side: int = 22) -> Study:
    """An ellipsoid of smooth texture with one to four sequences; pairs share a subject."""
    rng = np.random.default_rng(number)
    axes = np.meshgrid(*[np.linspace(-1, 1, side)] * 3, indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.9
    anatomy = ndimage.gaussian_filter(rng.standard_normal(inside.shape), 2)
    anatomy /= anatomy.std()
    volumes = {
        name: np.where(inside, 500 + (60 + 40 * index) * anatomy, 0).clip(0).astype(np.float32)
        for index, name in enumerate(SEQUENCES[: 1 + number % 4])
    }
    return Study(
        key=f"case-{number:03d}",
        subject=f"case-{number // 2:03d}",
        volumes=volumes,
        affine=np.diag([3.0, 3.0, 3.0, 1.0]),
        fingerprint=f"{number + 1:032x}",
        layout="synthetic",
    )


@pytest.fixture(scope="session")
def write_set():
    """The function that writes so many studies as a shard set."""

    def write(folder: Path, studies: int, limit: int = 100_000) -> Path:
        encoded = (encode_study(make_study(n)) for n in range(studies))
        seal(folder, list(write_shards(folder, encoded, limit)), {"spacing": 3.0})
        return folder

    return write


@pytest.fixture(scope="session")
def shards(tmp_path_factory, write_set) -> Path:
    """A shard set of eight studies."""
    return write_set(tmp_path_factory.mktemp("shards"), 8)


@pytest.fixture
def config(shards, tmp_path) -> PretrainConfig:
    """A run of ten small steps."""
    return PretrainConfig(
        data=DataConfig(train=(str(shards),), workers=0),
        run=RunConfig(out=tmp_path / "run", steps=10, checkpoint_every=3),
        model=ModelConfig(patch_size=4, experts=2, decoder_width=64, decoder_depth=1),
        views=ViewConfig(size=16, shift=4),
        augment=replace(AugmentConfig(), elastic_sigma=6),
        optim=OptimConfig(batch=4, lr=1e-3, warmup=2),
        monitor=MonitorConfig(log_every=5, pictures_every=5),
    )


@pytest.fixture
def killed_at(monkeypatch):
    """A context in which a run ends abruptly at a step, with nothing written."""

    @contextmanager
    def at(step: int) -> Iterator[None]:
        whole = loop.train_step

        def train_step(training, number):
            if number == step:
                raise KeyboardInterrupt
            return whole(training, number)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(loop, "train_step", train_step)
            yield

    return at


@pytest.fixture(scope="session")
def serve():
    """The function that serves a folder with byte ranges, as a context with the URL."""
    path = Path(__file__).parents[1] / "benchmarks/range_server.py"
    spec = importlib.util.spec_from_file_location("range_server", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.serve
