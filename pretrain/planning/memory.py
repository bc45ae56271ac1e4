"""Bytes: what a process keeps on its device, what a checkpoint takes."""

from dataclasses import asdict, dataclass

from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.planning.work import Work

_FP32, _BF16 = 4, 2


@dataclass(frozen=True)
class Memory:
    """Bytes of a process on its device, by part."""

    weights: int
    gradients: int
    optimizer: int
    """AdamW's two moments, and the fp32 copy that ZeRO and bf16 keep."""
    activations: int
    """What the backward pass of one part of a step needs."""

    @property
    def total(self) -> int:
        """All of it; buffers of kernels and communication come on top."""
        return sum(asdict(self).values())


def device_memory(work: Work, config: PretrainConfig, precision: str, world: int) -> Memory:
    """What a process needs at least (ZeRO: Rajbhandari et al. 2020, section 3).

    Args:
        work: Of the configuration.
        config: Of the run.
        precision: `fp32`, `autocast` or `bf16`.
        world: Processes.

    Raises:
        UsageError: If the batch cannot be shared out.
    """
    stage = config.engine.zero_stage
    width = _weight_bytes(precision)
    averaged = _FP32 if config.optim.ema else 0
    return Memory(
        weights=work.parameters * (width + averaged),
        gradients=work.trained * width // (world if stage == 2 else 1),
        optimizer=_state_bytes(work, stage, precision) // (world if stage else 1),
        activations=work.kept_bytes * config.micro_batch(world),
    )


def checkpoint_bytes(work: Work, config: PretrainConfig, precision: str) -> int:
    """A checkpoint: weights twice (DeepSpeed's and safetensors), state of the optimizer."""
    width = _weight_bytes(precision)
    averaged = _FP32 if config.optim.ema else 0
    state = _state_bytes(work, config.engine.zero_stage, precision)
    return work.parameters * (2 * width + averaged) + state


def kept_checkpoints(config: PretrainConfig) -> int:
    """Checkpoints that lie there at most at one time, one that is being written included."""
    run = config.run
    extra = run.steps // run.keep_every if run.keep_every else 0
    return min(run.keep + extra + 1, run.steps // run.checkpoint_every + 1)


def _weight_bytes(precision: str) -> int:
    """Bytes of a weight and of its gradient."""
    return _BF16 if precision == "bf16" else _FP32


def _state_bytes(work: Work, stage: int, precision: str) -> int:
    """Bytes of the optimizer's state over all processes that share it."""
    copy = stage > 0 or precision == "bf16"
    return work.trained * _FP32 * (3 if copy else 2)
