"""What a step and a run will take: arithmetic on counted work, measured rates and data sheets.

A step lasts max(compute, reading) + communication + overhead. Compute is the FLOPs of 3 forward
passes (4 with recomputation) over the FLOP/s that were measured or are assumed. Gradients and
weights go through NCCL's hierarchical all-reduce: within a node at the links' rate, between nodes
at the network's. None of it is taken as hidden behind computation.
"""

from dataclasses import asdict, dataclass

from gliomoe.pretrain.config import PretrainConfig
from gliomoe.pretrain.planning.hardware import Cluster, Gpu
from gliomoe.pretrain.planning.memory import checkpoint_bytes
from gliomoe.pretrain.planning.work import Work

_HOUR = 3600


@dataclass(frozen=True)
class Speed:
    """How fast one process computes and reads."""

    flops_per_s: float
    """FLOP/s attained in forward and backward pass."""
    overhead: float
    """Seconds of a step that do not grow with its batch."""
    studies_per_s: float | None
    """Studies that one reading process delivers a second; None if nobody measured it."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of a step, by cause."""

    compute: float
    data: float
    """Reading, which goes on beside the computation."""
    network: float
    overhead: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return max(self.compute, self.data) + self.network + self.overhead

    @property
    def binds(self) -> str:
        """What most of the step waits for."""
        parts = asdict(self)
        return max(parts, key=lambda name: parts[name])


def training_flops(work: Work, config: PretrainConfig, studies: float) -> float:
    """FLOPs of forward and backward pass: the backward pass takes twice the forward pass."""
    return work.forward_flops * studies * (4 if config.engine.recompute else 3)


def step_time(
    work: Work,
    config: PretrainConfig,
    precision: str,
    world: int,
    speed: Speed,
    cluster: Cluster,
    gpu: Gpu | None,
) -> StepTime:
    """Seconds of an optimizer step.

    Args:
        work: Of one study.
        config: Of the run; its batch is shared out evenly.
        precision: `fp32`, `autocast` or `bf16`.
        world: Processes, one a GPU.
        speed: Of each.
        cluster: What connects them.
        gpu: Links within a node; None, on CPU, leaves communication out.
    """
    studies = config.optim.batch / world
    readers = max(1, config.data.workers)
    reading = studies / (speed.studies_per_s * readers) if speed.studies_per_s else 0.0
    sent = work.trained * (2 if precision == "bf16" else 4)
    # ZeRO-2 reduces the gradients of every part, the others those of the whole step.
    rounds = config.engine.accumulation if config.engine.zero_stage == 2 else 1
    network = 0.0
    if gpu is not None:
        half = all_reduce_seconds(sent, world, cluster, gpu) / 2
        network = half * rounds + half
    return StepTime(
        compute=training_flops(work, config, studies) / speed.flops_per_s,
        data=reading,
        network=network,
        overhead=speed.overhead,
    )


def all_reduce_seconds(size: float, world: int, cluster: Cluster, gpu: Gpu) -> float:
    """Seconds of a hierarchical all-reduce (Patarasuk & Yuan 2009, ring, at both levels).

    The gradients are reduced and scattered within a node, reduced over the nodes piece by piece,
    each GPU its own through its own network port, and gathered within the node. Half of it is a
    reduce-scatter, the other half an all-gather.

    Args:
        size: Bytes.
        world: GPUs.
        cluster: Nodes and network.
        gpu: Links within a node.
    """
    local = min(world, cluster.gpus_per_node)
    nodes = -(-world // cluster.gpus_per_node)
    link = gpu.link_gb_s * 1e9 / 2  # one direction
    network = cluster.network_gbit * 1e9 / 8
    within = 2 * (local - 1) / local * size / link
    between = 2 * (nodes - 1) / nodes * (size / local) / network
    return within + between


def run_hours(
    work: Work,
    config: PretrainConfig,
    precision: str,
    step: StepTime,
    speed: Speed,
    cluster: Cluster,
    world: int,
) -> float:
    """Hours of the whole run: steps, checkpoints, pictures and probes.

    Args:
        work: Of one study.
        config: Of the run.
        precision: As in `step_time`.
        step: From `step_time`.
        speed: Of a process.
        cluster: Where checkpoints go.
        world: Processes.
    """
    run, probe = config.run, config.probe
    size = checkpoint_bytes(work, config, precision)
    checkpoints = run.steps / run.checkpoint_every * size / (cluster.disk_gb_s * 1e9)
    forward = work.forward_flops / speed.flops_per_s
    shown = config.optim.batch / world / config.engine.accumulation
    every = config.monitor.pictures_every
    pictures = run.steps / every * shown * forward if every else 0.0
    # A probe encodes its studies without a mask.
    probes = run.steps * config.optim.batch / probe.every if probe.data else 0.0
    probing = probes * probe.studies * forward / (1 - config.mask.ratio)
    return (run.steps * step.seconds + checkpoints + pictures + probing) / _HOUR
