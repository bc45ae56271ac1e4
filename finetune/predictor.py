"""A fine-tuned ensemble ready for raw cases."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.sample import to_sample
from gliomoe.data_shards.sequences import SEQUENCES
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
            preprocess=PreprocessConfig.from_json(run.preprocessing),
            inference=run.inference,
            thresholds=run.thresholds,
        )

    def __call__(self, study: Study) -> StudyPrediction:
        """Predict a preprocessed study, on its own grid."""
        return predict_study(self.models, to_sample(study), self.inference)
