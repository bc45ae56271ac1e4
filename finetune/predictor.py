"""A fine-tuned ensemble ready for raw cases."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from gliomoe.data_shards.batch import StudySample
from gliomoe.data_shards.errors import DataError
from gliomoe.data_shards.preprocess import PreprocessConfig
from gliomoe.data_shards.reading.sample import to_sample
from gliomoe.data_shards.sequences import SEQUENCES
from gliomoe.data_shards.study import Study
from gliomoe.finetune.calibration import Temperature, calibrated
from gliomoe.finetune.explain import AttentionMap, explain
from gliomoe.finetune.inference import InferenceConfig, StudyPrediction, predict_study
from gliomoe.finetune.inputs import gene_tables, genes_of, missing_sequences
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
    temperatures: Mapping[str, Temperature]
    """Marker task → temperature from validation, at which probabilities are given."""
    genes: Mapping[str, Tensor]
    """Case name → gene table [G, A]; empty for models of images alone."""

    @classmethod
    def open(
        cls,
        source: Path,
        device: str = "auto",
        genes: Path | None = None,
        draws: int = 0,
        flips: bool = False,
        folds: Sequence[int] = (),
    ) -> "Predictor":
        """Load a fine-tuned run's folder (the ensemble of its folds) or one checkpoint folder.

        Args:
            source: The folder.
            device: `auto`: the GPU if there is one.
            genes: Gene table of the cases, for models that take one.
            draws: Predictions with dropout switched on, of each member; 0 predicts without.
            flips: Average over mirror images.
            folds: Members of a run's ensemble, counted from 0; none: all.

        Raises:
            UsageError: If it is neither, or an encoder without heads, or the gene table is missing.
            CheckpointError: If a checkpoint is damaged or its tensors do not fit.
        """
        run = FinetunedRun.open(source, folds)
        configs = [read_config(folder) for folder in run.folders]
        hashes = [config["files"][WEIGHTS]["sha256"] for config in configs]
        trained_on = {name for config in configs for name in config["sequences"]}
        joint = hashlib.sha256("".join(hashes).encode()).hexdigest()
        models = tuple(run.models(pick_device(device)))
        return cls(
            source=source,
            name=configs[0]["model"]["name"],
            models=models,
            sha256=hashes[0] if len(hashes) == 1 else joint,
            sequences=tuple(sorted(trained_on, key=SEQUENCES.index)),
            preprocess=PreprocessConfig.from_json(run.preprocessing),
            inference=replace(run.inference, draws=draws, flips=flips),
            thresholds=run.thresholds,
            temperatures=run.temperatures,
            genes=gene_tables(models[0], genes),
        )

    def __call__(self, study: Study) -> StudyPrediction:
        """Predict a preprocessed study, on its own grid, with calibrated markers.

        Raises:
            DataError: If the study lacks a sequence that the model needs.
        """
        prediction = predict_study(self.models, self._sample(study), self.inference)
        return replace(prediction, markers=calibrated(prediction.markers, self.temperatures))

    def explain(self, study: Study, prediction: StudyPrediction) -> dict[str, AttentionMap]:
        """Attention and expert maps of the first member, around the predicted tumour."""
        model, sample = self.models[0], self._sample(study)
        return explain(model, sample, prediction.regions, study.affine, self.inference)

    def _sample(self, study: Study) -> StudySample:
        """A study with all that the model takes."""
        model, sample = self.models[0], to_sample(study)
        if missing := missing_sequences(model, list(study.volumes)):
            needed = ", ".join(model.encoder.sequences)
            raise DataError(f"lacks {', '.join(missing)}; {self.name} needs {needed}")
        if model.genes:
            sample = replace(sample, genes=genes_of(study.subject, model, self.genes))
        return sample
