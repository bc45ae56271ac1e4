"""A tiny labelled cohort: noise with a bright ball, whose brightness tells the markers."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gliomoe.data_shards.build import BuildConfig
from gliomoe.data_shards.dataset import seal
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.record import encode_study
from gliomoe.data_shards.study import Study
from gliomoe.data_shards.writer import write_shards

SIDE = 20


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
        fingerprint=hashlib.sha256(str(number).encode()).hexdigest(),
    )
