"""Sections of a pretraining configuration: one frozen dataclass each, documented field by field.

Every number that decides what is trained counts studies over all processes, so that a run means the
same on one process and on a thousand.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gliomoe.data_shards.reading.reader import OrderConfig
from gliomoe.data_shards.storage.config import StorageConfig
from gliomoe.models.settings import parse_settings


@dataclass(frozen=True)
class DataConfig:
    """What is read."""

    train: tuple[str, ...]
    """Shard sets that `gliomoe shards build` wrote, folders or URLs (s3, gs, az, http, https);
    several are read as one."""
    workers: int = 1
    """Reading processes beside each training process; 0 reads in the training process."""
    timeout: float = 300.0
    """Seconds without a batch after which reading is given up; 0 waits for ever."""
    allow_pipes: bool = False
    """Let `pipe:COMMAND` among the shard sets run commands; only for the streaming reader."""
    order: OrderConfig = field(default_factory=OrderConfig)
    """In which order studies are taken."""
    storage: StorageConfig = field(default_factory=StorageConfig)
    """How URLs are read."""

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        if self.timeout < 0:
            raise ValueError("data.timeout must not be negative")
        if self.order.reader == "streaming" and self.workers > 1:
            raise ValueError(
                "data.workers must be 0 or 1 with data.order.reader streaming: "
                "every worker would read every shard"
            )


@dataclass(frozen=True)
class ModelConfig:
    """The encoder that is pretrained and the decoder that is thrown away."""

    name: str = "gliomoe_tiny"
    """Name in `gliomoe models`."""
    patch_size: int | None = None
    """Side of a token's patch, voxels; the model's own if not given."""
    experts: int | None = None
    """Experts of each mixture; the model's own if not given, 1 for a dense model."""
    set: tuple[str, ...] = ()
    """Other settings of the model, as `top_k=1 dlka=off`; with `router_bias=true` biases balance
    the experts by `optim.bias_rate`, and loss.routing may be 0."""
    decoder_width: int = 128
    """Width of the decoder's blocks."""
    decoder_depth: int = 2
    """Number of the decoder's blocks."""

    @property
    def overrides(self) -> dict[str, Any]:
        """Arguments of `create_model` that differ from the model's own."""
        given = {"patch_size": self.patch_size, "experts": self.experts}
        named = {key: value for key, value in given.items() if value is not None}
        return {**parse_settings(self.set), **named}


@dataclass(frozen=True)
class ViewConfig:
    """The two views of a study."""

    size: int = 96
    """Side of a view, voxels; a multiple of the patch size."""
    shift: int = 24
    """Views begin up to so many voxels apart along each axis; the rest of them overlaps."""
    hide: bool = True
    """Hide a random subset of the sequences from each view; they are still reconstructed."""

    def __post_init__(self) -> None:
        """Refuse views that do not overlap."""
        if not 0 <= self.shift < self.size:
            raise ValueError(f"views.shift must be from 0 to below views.size ({self.size})")

    @property
    def box(self) -> int:
        """Side of the box that holds both views, voxels."""
        return self.size + self.shift


@dataclass(frozen=True)
class MaskConfig:
    """Which positions are hidden and which of them are predicted."""

    ratio: float = 0.75
    """Part of the positions with tissue that is masked (MAGPIE: 0.75)."""
    predicted: float = 1 / 3
    """Part of the masked positions that is predicted; 1 for all of them."""
    seen: float = 0.0
    """Part of the seen positions that is predicted too: what they show, and what sequences hidden
    from the view would show there."""

    def __post_init__(self) -> None:
        """Refuse parts that leave nothing to see or to predict."""
        if not (0 < self.ratio < 1 and 0 < self.predicted <= 1 and 0 <= self.seen <= 1):
            raise ValueError(
                "mask.ratio must be between 0 and 1, mask.predicted above 0, up to 1, "
                "mask.seen from 0 to 1"
            )


@dataclass(frozen=True)
class LossConfig:
    """What is minimised: reconstruction + contrast + routing (MAGPIE, eq. 9), or another sum."""

    objective: str = "mae+contrast"
    """`mae`, `contrast`, `mae+contrast`, `jepa` or `swin_unetr`."""
    reconstruction: float = 1.0
    """Weight of the mean error of a predicted voxel."""
    normalise: bool = True
    """Predict patches normalised by their own mean and deviation; off: as they are."""
    average: Literal["study", "patch"] = "study"
    """Whether studies or patches weigh the same in the reconstruction (MAGPIE, eq. 7: patches)."""
    contrast: float = 1.0
    """Weight of the contrastive loss."""
    routing: float = 0.01
    """Weight of the routers' load balance."""
    router_z: float = 0.0
    """Weight of the squared size of the routers' logits (ST-MoE: 0.001)."""
    temperature: float = 0.1
    """Temperature of the contrastive loss."""
    other_sessions: bool = False
    """Contrast a study with other sessions of its subject too (MAGPIE, eq. 8)."""
    rotation: float = 1.0
    """Weight of the rotation of `swin_unetr`."""
    momentum: float = 0.996
    """Decay of the teacher of `jepa` at the first step; it rises to 1 over the run."""

    def __post_init__(self) -> None:
        """Refuse what is no loss."""
        if min(self.reconstruction, self.contrast, self.routing, self.router_z, self.rotation) < 0:
            raise ValueError("weights of loss must not be negative")
        if self.temperature <= 0 or not 0 <= self.momentum <= 1:
            raise ValueError("loss.temperature must be above 0, loss.momentum from 0 to 1")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule."""

    batch: int = 16
    """Studies in an optimizer step, over all processes."""
    lr: float = 1e-4
    """Learning rate after the warm-up."""
    lr_end: float = 1e-6
    """Learning rate at the last step, reached along a cosine."""
    warmup: int = 100
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = 0.05
    """Decay of matrices; vectors (biases, norms) are left alone."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    ema: float = 0.0
    """Decay of a running mean of the weights, which is what is exported; 0 for none."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    bias_rate: float = 1e-3
    """Step of the routers' biases, with `router_bias=true` in `model.set`."""

    def __post_init__(self) -> None:
        """Refuse a mean that never moves."""
        if not 0 <= self.ema < 1:
            raise ValueError("optim.ema must be from 0 to below 1")


@dataclass(frozen=True)
class EngineConfig:
    """How DeepSpeed runs the step."""

    zero_stage: int = 1
    """ZeRO 0, 1 or 2: 1 shares the optimizer's state among processes, 2 the gradients also."""
    precision: Literal["auto", "fp32", "autocast", "bf16"] = "auto"
    """`autocast`: fp32 weights, bf16 arithmetic; `bf16`: bf16 weights too, with an fp32 copy in the
    optimizer, which ZeRO 1 and 2 share; `auto`: `autocast` on GPUs with bf16, else fp32."""
    accumulation: int = 1
    """Parts in which a process works through its share of a batch, to save memory."""
    recompute: bool = False
    """Activation checkpointing: compute the encoder's blocks twice, to save memory."""
    compile: str = ""
    """Backend of `torch.compile` for the encoder's blocks, such as `inductor`; none if empty. The
    first step takes minutes."""
    expert_parallel: int = 1
    """Processes that share out the experts of each mixture; 1: every process has them all. It must
    divide the processes and the experts, and stays the same when a run is continued."""
    timeout: float = 600.0
    """Seconds that a process may compute without finishing a step; then it is taken to hang, and
    all end. Starting and writing a checkpoint may take four times as long."""

    def __post_init__(self) -> None:
        """Refuse what does not go together, and a time-out that ends every run."""
        if self.timeout <= 0:
            raise ValueError("engine.timeout must be above 0")
        if self.zero_stage not in (0, 1, 2):
            raise ValueError(
                f"engine.zero_stage must be 0, 1 or 2, not {self.zero_stage}: stage 3 cuts single "
                "weights into pieces, which DeepSpeed refuses for mixtures of experts"
            )
        if self.precision == "bf16" and self.zero_stage == 0:
            raise ValueError(
                "engine.precision bf16 needs engine.zero_stage 1 or 2: without ZeRO DeepSpeed adds "
                "gradients up in bf16"
            )
        if self.expert_parallel > 1 and self.compile:
            raise ValueError(
                "engine.compile and engine.expert_parallel exclude each other: tokens travel "
                "between processes inside the blocks; leave one of them out"
            )
        if self.expert_parallel > 1 and self.precision == "bf16":
            raise ValueError(
                "engine.precision bf16 and engine.expert_parallel exclude each other; take "
                "engine.precision autocast"
            )


@dataclass(frozen=True)
class RunConfig:
    """The run as a whole."""

    out: Path
    """Folder of the run; made if need be. The same command continues what is there."""
    steps: int = 10_000
    """Optimizer steps."""
    seed: int = 0
    """Decides initial weights, order, crops, masks and augmentation."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    keep: int = 2
    """Newest checkpoints to keep."""
    keep_every: int = 0
    """Also keep every checkpoint whose step is a multiple of this; 0 for none."""


@dataclass(frozen=True)
class HealthConfig:
    """Which steps are skipped, when a run stops, and what is reported of the routers."""

    bad_steps: int = 10
    """Skipped steps in a row after which the run stops."""
    spike: float = 0.0
    """Skip a step whose loss exceeds the running median by so many deviations; 0 for never."""
    spike_window: int = 100
    """Steps over which that median is taken."""
    collapse_share: float = 0.01
    """Share of the choices below which an expert counts as unused."""
    collapse_steps: int = 200
    """Steps in a row with an unused expert after which it is reported."""
    silence: float = 30.0
    """Seconds without a sign of life of a process, or of the first node, after which it counts as
    lost, and all end."""

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing."""
        if min(self.spike, self.collapse_share) < 0:
            raise ValueError("health.spike and health.collapse_share must not be negative")
        if self.silence <= 0:
            raise ValueError("health.silence must be above 0")


@dataclass(frozen=True)
class MonitorConfig:
    """What is shown while it runs."""

    log_every: int = 10
    """Steps between TensorBoard's scalars."""
    pictures_every: int = 500
    """Steps between pictures of input, mask and reconstruction; 0 for none."""
    wandb: str = ""
    """Project of Weights & Biases to log to as well; needs the package wandb."""
    mlflow: str = ""
    """Experiment of MLflow to log to as well; needs the package mlflow."""


@dataclass(frozen=True)
class ProbeConfig:
    """How good frozen features are, asked while the encoder trains."""

    data: tuple[str, ...] = ()
    """Labelled shard sets, preprocessed like `data.train`; none for no probe."""
    every: int = 10_000
    """Studies read between two probes, over all processes; the first is of random weights."""
    studies: int = 40
    """Studies of the labelled sets that are used, at most."""
    folds: int = 4
    """Parts for cross-validation, grouped by subject."""

    def __post_init__(self) -> None:
        """Refuse a cross-validation that leaves nothing to learn from."""
        if self.folds < 2:
            raise ValueError(f"probe.folds must be at least 2, not {self.folds}")
