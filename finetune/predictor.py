"""A fine-tuned ensemble ready for raw cases, and a preprocessed study as its input."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.codec import quantise
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.intensity import normalise, robust_range
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.sequences import SEQUENCES, sequence_number
from gliomoe.data_shards.study import Study
from gliomoe.finetune.inference import InferenceConfig, StudyPrediction, predict_study
from gliomoe.finetune.precision import pick_device
from gliomoe.finetune.run import FinetunedRun
from gliomoe.models.checkpoint import read_config
from gliomoe.models.model import Model

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Predictor:
    """The models of a fine-tuned run and how their input is made."""

    source: Path
    name: str
    """Name of the architecture."""
    models: tuple[Model, ...]
    sha256: str
    """Of the members' weights: of the file, or of the list of their hashes for an ensemble."""
    sequences: tuple[str, ...]
    """What the training cases had."""
    preprocess: PreprocessConfig
    inference: InferenceConfig
    thresholds: dict[str, float | None]
    """Binary marker → decision threshold from validation; None where there is none."""

    @classmethod
    def open(cls, source: Path, device: str = "auto") -> "Predictor":
        """Load a fine-tuned run's folder (the ensemble of its folds) or one checkpoint folder.

        Raises:
            UsageError: If it is neither, or an encoder without heads.
            CheckpointError: If a checkpoint is damaged or its tensors do not fit.
        """
        run = FinetunedRun.open(source)
        configs = [read_config(folder) for folder in run.folders]
        hashes = [config["files"][WEIGHTS]["sha256"] for config in configs]
        trained_on = {name for config in configs for name in config["sequences"]}
        joint = hashlib.sha256("".join(hashes).encode()).hexdigest()
        return cls(
            source=source,
            name=configs[0]["model"]["name"],
            models=tuple(run.models(pick_device(device))),
            sha256=hashes[0] if len(hashes) == 1 else joint,
            sequences=tuple(sorted(trained_on, key=SEQUENCES.index)),
            preprocess=PreprocessConfig(**run.preprocessing),
            inference=run.inference,
            thresholds=run.thresholds,
        )

    def __call__(self, study: Study) -> StudyPrediction:
        """Predict a preprocessed study, on its own grid."""
        return predict_study(self.models, to_sample(study), self.inference)


def to_sample(study: Study) -> StudySample:
    """A study as models take it, the same to the bit as written to a shard and read back.

    Raises:
        DataError: If there is no volume, or a volume has no contrast.
    """
    if not study.volumes:
        raise DataError(f"{study.key}: has no usable sequence; give it at least one image")
    names = sorted(study.volumes, key=SEQUENCES.index)
    voxels = np.zeros((len(names), *study.shape), np.float32)
    for name, out in zip(names, voxels, strict=True):
        low, high = robust_range(study.volumes[name])
        if not low < high:
            raise DataError(f"{study.key}: {name} has no contrast; leave it out of the case")
        stored = quantise(study.volumes[name], low, high)
        normalise(stored.codes, stored.scale, stored.offset, low, high, out=out)
    return StudySample(
        key=study.key,
        voxels=torch.from_numpy(voxels),
        sequence=torch.tensor([sequence_number(name) for name in names]),
        spacing=torch.tensor(study.spacing, dtype=torch.float32),
    )
