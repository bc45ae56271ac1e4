"""What a fine-tuning run is told: one frozen dataclass, sections beside what they configure."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.finetune.artefacts import ArtefactConfig
from gliomoe.finetune.distil import DistilConfig
from gliomoe.finetune.freeze import Freeze
from gliomoe.finetune.lora import LoraConfig
from gliomoe.finetune.losses import LossConfig
from gliomoe.finetune.precision import Precision

Task = Literal["seg", "idh", "1p19q", "tert", "grade", "hgg"]
TASKS: tuple[Task, ...] = ("seg", "idh", "1p19q", "tert", "grade")
"""What is learned by default; `hgg`, LGG against HGG, is for tables without WHO grades."""

SCRATCH = "scratch"


@dataclass(frozen=True)
class ArchConfig:
    """The network and its input from scratch; a checkpoint brings its own."""

    patch_size: int | None = None
    """Side of a token in voxels; None: the model's own."""
    set: tuple[str, ...] = ()
    """Other settings of the model, as `experts=16 dlka=off`."""
    spacing: float | None = None
    """Voxel size in mm after preprocessing; None: the checkpoint's, 1 mm from scratch."""


@dataclass(frozen=True)
class CropConfig:
    """What the network sees at a time."""

    size: tuple[int, int, int] = (128, 128, 128)
    """D, H, W in voxels, in training."""
    window: tuple[int, int, int] | None = None
    """D, H, W of what is predicted at a time; None: as large as in training."""
    tumour: float = 0.67
    """Part of the crops that are placed around a voxel of the tumour, the others around tissue."""
    sequence_dropout: float = 0.0
    """Probability that a crop lacks a sequence of its case, each by itself; one always stays."""
    flip: float = 0.0
    """Probability that a crop is mirrored, along each axis by itself."""

    def __post_init__(self) -> None:
        """Refuse sizes below 1 and what is no probability."""
        if min(*self.size, *(self.window or ())) < 1:
            raise ValueError("crop.size and crop.window must be at least 1 along each axis")
        if any(not 0 <= p <= 1 for p in (self.tumour, self.sequence_dropout, self.flip)):
            raise ValueError(
                "crop.tumour, crop.sequence_dropout and crop.flip must lie between 0 and 1"
            )


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and schedule; the defaults are MAGPIE's for fine-tuning."""

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 1e-2
    """Initial learning rate of new parts."""
    encoder_lr: float | None = None
    """Initial rate of what pretraining trains of the encoder; None: the same."""
    layer_decay: float = 1.0
    """Factor on the encoder's rate from each block to the one before it, the stem last (Clark et
    al. 2020, BEiT: 0.65 to 0.9); 1: one rate for all of it."""
    momentum: float = 0.9
    """Of SGD, with Nesterov's correction."""
    weight_decay: float = 3e-5
    """AdamW leaves norms and biases out of it."""
    schedule: Literal["polynomial", "cosine"] = "polynomial"
    """How the rates decay to 0 over all epochs."""
    power: float = 0.9
    """Of the polynomial decay."""
    warmup: int = 0
    """Steps of linear warm-up."""
    clip: float = 1.0
    """Largest gradient norm."""

    def __post_init__(self) -> None:
        """Refuse rates that cannot work."""
        if min(self.lr, self.clip) <= 0 or (self.encoder_lr is not None and self.encoder_lr <= 0):
            raise ValueError("optim.lr, optim.encoder_lr and optim.clip must be positive")
        if not 0 < self.layer_decay <= 1:
            raise ValueError("optim.layer_decay must be above 0 and at most 1")


@dataclass(frozen=True)
class TrainConfig:
    """Length of training and how it runs."""

    epochs: int = 200
    patience: int = 50
    """Epochs without a better validation score before a fold stops."""
    steps_per_epoch: int | None = None
    """Optimiser steps in an epoch; None: each training case once."""
    validate_every: int = 1
    """Epochs from one validation to the next; the last epoch always validates."""
    marker_weight: float = 0.1
    """Validation score = mean Dice − this × mean log loss of the markers."""
    batch: int = 2
    """Crops in a step."""
    precision: Precision = "auto"
    """`auto`: bf16 where the device is fast at it."""
    recompute: bool = False
    """Gradient checkpointing: less memory, about a third more work, the same gradients."""
    device: str = "auto"
    """`auto`: the GPU if there is one."""
    workers: int = 0
    """Processes that read crops, of each fold."""
    parallel: int = 1
    """Folds at a time, each in a process of its own; with `device auto` each has a GPU, in turn."""

    def __post_init__(self) -> None:
        """Refuse lengths that cannot work."""
        counts = (self.epochs, self.patience, self.validate_every, self.batch, self.parallel)
        if min(counts) < 1 or (self.steps_per_epoch is not None and self.steps_per_epoch < 1):
            raise ValueError(
                "train: epochs, patience, validate_every, batch, steps_per_epoch and parallel must "
                "be at least 1"
            )


@dataclass(frozen=True)
class FinetuneConfig:
    """Adapt a checkpoint, or train from scratch, on a few labelled cases."""

    data: Path
    """Shard set with kept ids, or a raw folder (BIDS, BraTS), which is preprocessed once."""
    out: Path
    """Folder of the run."""
    labels: Path | None = None
    """CSV or TSV with the cases' labels; without it those that the data carry themselves."""
    from_: Annotated[str, tyro.conf.arg(name="from")] = SCRATCH
    """Published checkpoint (folder or https address), or `scratch`."""
    model: str | None = None
    """Model to train from scratch, by default gliomoe_tiny; a checkpoint names its own."""
    shots: int = 20
    """Labelled cases that take part, chosen by label; fewer if there are fewer."""
    folds: int = 5
    """Parts of the cross-validation."""
    only_folds: tuple[int, ...] = ()
    """Folds to run, counted from 0; empty: all. The same command with others adds them."""
    tasks: tuple[Task, ...] = TASKS
    """What to learn, jointly."""
    genes: Path | None = None
    """TSV with the cases' genes, for models that take them (mdl_ca)."""
    freeze: Freeze = "none"
    """What keeps its weights: the encoder, its first blocks (`partial`), or all of it but low-rank
    adapters that are merged into the published weights (`lora`)."""
    train_blocks: int = 2
    """Blocks of the encoder, counted from its end, that train with `freeze partial`; with 0 only
    the parts do that pretraining never trains."""
    refit: float = 1.0
    """Strength (C) of the logistic regression on whole training cases that takes the place of the
    last layer of the markers when training is over (`gliomoe_*`, `magpie_*`); 0: as trained."""
    specks: float = 1.0
    """Largest volume, in ml, up to which a predicted region may count as noise and be left out; the
    volume itself is chosen by Dice on validation cases. 0: nothing is left out."""
    teacher: Path | None = None
    """Fine-tuned run that teaches a smaller model, beside the labels (distillation)."""
    splits: Path | None = None
    """A `splits.json` of another run to repeat."""
    cache: Path | None = None
    """Where a raw folder's shard set is kept; None: OUT/shards."""
    allow_leakage: bool = False
    """Train on cases that the checkpoint was pretrained on, and let each of a teacher's folds teach
    whatever it was trained on."""
    seed: int = 0
    arch: ArchConfig = field(default_factory=ArchConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    distil: DistilConfig = field(default_factory=DistilConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    artefacts: ArtefactConfig = field(default_factory=ArtefactConfig)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if self.folds < 2 or self.shots < self.folds:
            raise ValueError(
                f"folds ({self.folds}) must be at least 2, and shots ({self.shots}) at least folds"
            )
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks must be one or more of {', '.join(get_args(Task))}, each once")
        if any(not 0 <= fold < self.folds for fold in self.only_folds):
            raise ValueError(f"only_folds must lie between 0 and {self.folds - 1}")
        if min(self.train_blocks, self.refit, self.specks) < 0:
            raise ValueError("train_blocks, refit and specks must not be negative")
        if self.teacher is None and self.distil != DistilConfig():
            raise ValueError("settings of distil need a teacher, a fine-tuned run")

    @property
    def markers(self) -> tuple[Task, ...]:
        """The tasks beside segmentation."""
        return tuple(task for task in self.tasks if task != "seg")

    @property
    def run_folds(self) -> tuple[int, ...]:
        """The folds to run."""
        return self.only_folds or tuple(range(self.folds))
