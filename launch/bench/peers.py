"""The loader's work with other libraries: nibabel, MONAI's `PersistentDataset`, TorchIO's `Queue`.

Each gives two random crops of all sequences of a case as float32, not normalised.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

Files = dict[str, Path]


def arms(
    cases: Sequence[Files], size: int, scratch: Path
) -> dict[str, Callable[[np.random.Generator], int]]:
    """Name → function that reads a pair of crops of a case.

    Args:
        cases: Sequence → file; within a case all on one grid.
        size: Side of a crop, voxels.
        scratch: Folder for caches.
    """
    return {
        "nibabel_nii_gz": nibabel_files(cases, size),
        "monai_persistent_dataset": monai_cached(cases, size, scratch / "monai"),
        "torchio_queue": torchio_queue(cases, size),
    }


def nibabel_shape(path: Path) -> tuple[int, ...]:
    """The size of an image."""
    return nibabel.Nifti1Image.from_filename(path).shape


def nibabel_files(cases: Sequence[Files], size: int) -> Callable[[np.random.Generator], int]:
    """Read the files and cut twice."""

    def read(rng: np.random.Generator) -> int:
        files = list(cases[int(rng.integers(len(cases)))].values())
        volumes = [np.asarray(nibabel.Nifti1Image.from_filename(path).dataobj) for path in files]
        for _ in range(2):
            start = [int(rng.integers(0, n - size + 1)) for n in volumes[0].shape]
            place = tuple(slice(a, a + size) for a in start)
            crop = torch.from_numpy(np.stack([v[place].astype(np.float32) for v in volumes]))
            assert crop.shape[1:] == (size,) * 3
        return 2 * len(files)

    return read


def monai_cached(
    cases: Sequence[Files], size: int, cache: Path
) -> Callable[[np.random.Generator], int]:
    """Whole cases as tensors on disk, written on the first reading; cut twice."""
    from monai.data import PersistentDataset
    from monai.transforms import (
        Compose,
        ConcatItemsd,
        EnsureChannelFirstd,
        LoadImaged,
        RandSpatialCropSamplesd,
        SelectItemsd,
    )

    datasets = []
    for number, case in enumerate(cases):
        names = list(case)
        chain = [
            LoadImaged(names, reader="NibabelReader", image_only=True),
            EnsureChannelFirstd(names),
            ConcatItemsd(names, "image"),
            SelectItemsd(["image"]),
            RandSpatialCropSamplesd(["image"], (size,) * 3, num_samples=2, random_size=False),
        ]
        files = [{name: str(path) for name, path in case.items()}]
        datasets.append(PersistentDataset(files, Compose(chain), cache_dir=cache / str(number)))
        datasets[-1][0]

    def read(rng: np.random.Generator) -> int:
        crops = datasets[rng.integers(len(datasets))][0]
        return sum(len(crop["image"]) for crop in crops)

    return read


def torchio_queue(cases: Sequence[Files], size: int) -> Callable[[np.random.Generator], int]:
    """Two patches of each subject through a queue."""
    import torchio

    subjects = [
        torchio.Subject({name: torchio.ScalarImage(path) for name, path in case.items()})
        for case in cases
    ]
    queue = torchio.Queue(
        torchio.SubjectsDataset(subjects),
        max_length=2 * len(subjects),
        samples_per_volume=2,
        sampler=torchio.UniformSampler(size),
        num_workers=0,
    )

    def patches() -> Iterator[Any]:
        while True:
            yield from torch.utils.data.DataLoader(queue, batch_size=1, collate_fn=lambda x: x[0])

    stream = patches()

    def read(rng: np.random.Generator) -> int:
        pair = [next(stream) for _ in range(2)]
        return sum(
            len(torch.cat([image.data.float() for image in patch.get_images()])) for patch in pair
        )

    return read
