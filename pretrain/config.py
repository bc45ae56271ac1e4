"""Configuration of a pretraining run: its sections together, checked across fields."""

from dataclasses import dataclass, field

from gliomoe.data_shards.augment import AugmentConfig
from gliomoe.data_shards.errors import UsageError
from gliomoe.pretrain.sections import (
    DataConfig,
    EngineConfig,
    HealthConfig,
    LossConfig,
    MaskConfig,
    ModelConfig,
    MonitorConfig,
    OptimConfig,
    ProbeConfig,
    RunConfig,
    ViewConfig,
)


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining run."""

    data: DataConfig
    run: RunConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    views: ViewConfig = field(default_factory=ViewConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if self.optim.batch % self.engine.accumulation:
            raise ValueError(
                f"optim.batch ({self.optim.batch}) must be a multiple of engine.accumulation "
                f"({self.engine.accumulation})"
            )
        if self.model.patch_size and self.views.size % self.model.patch_size:
            raise ValueError(
                f"views.size ({self.views.size}) must be a multiple of model.patch_size "
                f"({self.model.patch_size})"
            )
        if self.optim.warmup > self.run.steps:
            raise ValueError(
                f"optim.warmup ({self.optim.warmup}) must not exceed run.steps ({self.run.steps})"
            )
        for key, value in _positive(self):
            if value < 1:
                raise ValueError(f"{key} must be at least 1, not {value}")

    def micro_batch(self, world: int) -> int:
        """Studies in one forward pass of one process.

        Raises:
            UsageError: If the batch or the experts cannot be shared out evenly.
        """
        if world % self.engine.expert_parallel:
            raise UsageError(
                f"engine.expert_parallel ({self.engine.expert_parallel}) must divide the number of "
                f"processes ({world})"
            )
        parts = self.engine.accumulation * world
        if self.optim.batch % parts:
            raise UsageError(
                f"optim.batch ({self.optim.batch}) must be a multiple of processes × "
                f"engine.accumulation ({world} × {self.engine.accumulation})"
            )
        return self.optim.batch // parts


def _positive(config: PretrainConfig) -> list[tuple[str, int]]:
    """Options that count something."""
    return [
        ("optim.batch", config.optim.batch),
        ("engine.accumulation", config.engine.accumulation),
        ("engine.expert_parallel", config.engine.expert_parallel),
        ("run.steps", config.run.steps),
        ("run.checkpoint_every", config.run.checkpoint_every),
        ("run.keep", config.run.keep),
        ("health.bad_steps", config.health.bad_steps),
        ("monitor.log_every", config.monitor.log_every),
        ("health.spike_window", config.health.spike_window),
        ("health.collapse_steps", config.health.collapse_steps),
        ("probe.every", config.probe.every),
        ("probe.studies", config.probe.studies),
    ]
