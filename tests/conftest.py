"""Fixtures that several folders' tests use, among them a tiny labelled cohort.

Its studies are noise with a bright ball, whose brightness tells the markers.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from gliomoe.data_shards.format.dataset import seal
from gliomoe.data_shards.format.record import encode_study
from gliomoe.data_shards.format.writer import write_shards
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.study import Study

# As the command line does, and before torch is loaded: threads that spin while they wait slow a
# busy machine many times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

SIDE = 20

PRESET = """
shots = 8
folds = 2
tasks = ["seg", "idh", "grade"]

[arch]
spacing = 3.0
set = {settings}

[crop]
size = [16, 16, 16]

[train]
epochs = 1
steps_per_epoch = 2
precision = "fp32"

[optim]
name = "adamw"
lr = 3e-3

[artefacts]
bias_field = 0.0
kspace_noise = 0.0
spike = 0.0
"""


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real MRI cases, or a skip that says why."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("GLIOMOE_TEST_DATA", root / "../shared/data")).resolve()
    if not (folder / "brats").is_dir():
        pytest.skip(f"no real MRI in {folder}; set GLIOMOE_TEST_DATA")
    return folder


@pytest.fixture(autouse=True, scope="session")
def two_threads() -> None:
    """The suite is sized for two cores."""
    import torch

    torch.set_num_threads(2)


def ball_study(number: int, has_seg: bool = True) -> Study:
    """Study `case-<number>`: T1 and FLAIR of an ellipsoid head with nested balls as tumour."""
    rng = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1)
    head = np.linalg.norm((grid - SIDE / 2) / (SIDE / 2), axis=-1) < 0.95
    distance = np.linalg.norm(grid - rng.uniform(7, 13, 3), axis=-1)
    seg = np.select([distance < 2, distance < 3, distance < 5], [1, 3, 2], 0).astype(np.uint8)
    mutant = number % 2
    flair = 100 + 100 * (seg > 0) * (1 - 0.5 * mutant) + 60 * (seg == 3) + 40 * (seg == 1)
    t1 = 100 - 30.0 * (seg > 0) - 30 * (seg == 1)
    volumes = {
        name: (np.where(head, image + rng.normal(0, 5, image.shape), 0)).astype(np.float32)
        for name, image in (("t1", t1), ("flair", flair))
    }
    return Study(
        key=f"case-{number}",
        subject=f"case-{number}",
        volumes=volumes,
        affine=np.diag([3.0, 3.0, 3.0, 1.0]),
        seg=np.where(head, seg, 0).astype(np.uint8) if has_seg else None,
        fingerprint=hashlib.blake2b(bytes([number]), digest_size=16).hexdigest(),
    )


@pytest.fixture(scope="session")
def ball_shards(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Builds a shard set of ball studies: `ball_shards(numbers, without_seg=())`."""

    def build(numbers: range | list[int], without_seg: tuple[int, ...] = ()) -> Path:
        folder = tmp_path_factory.mktemp("balls")
        studies = sorted(
            (ball_study(n, n not in without_seg) for n in numbers), key=lambda study: study.key
        )
        shards = list(write_shards(folder, map(encode_study, studies), 10**9))
        seal(folder, shards, asdict(PreprocessConfig(spacing=3.0)))
        return folder

    return build


@pytest.fixture(scope="session")
def write_labels() -> Callable[..., Path]:
    """Writes a label table: odd ball studies are mutant and of grade 2, even ones of grade 4."""

    def write(path: Path, numbers: range | list[int]) -> Path:
        rows = [
            f"case-{n},{'mutant' if n % 2 else 'wildtype'},{2 if n % 2 else 4}" for n in numbers
        ]
        text = "\n".join(["participant_id,idh,grade", *rows]) + "\n"
        path.write_text(text.replace(",", "\t"), "utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def tiny_settings() -> dict[str, int]:
    """Settings that make gliomoe_tiny tinier still."""
    size = {"patch_size": 4, "width": 24, "depth": 2, "heads": 2, "hidden": 32}
    return {**size, "experts": 2, "expert_hidden": 16}


@pytest.fixture(scope="session")
def tiny_preset(tmp_path_factory: pytest.TempPathFactory, tiny_settings: dict[str, int]) -> Path:
    """Two steps for each of two folds of eight balls; tests give what they need otherwise."""
    path = tmp_path_factory.mktemp("preset") / "tiny.toml"
    settings = json.dumps([f"{name}={value}" for name, value in tiny_settings.items()])
    path.write_text(PRESET.format(settings=settings), "utf-8")
    return path
